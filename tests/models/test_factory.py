"""The one way to a model: names, arguments and weights, and what is said when one is wrong."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from tokenlabel.errors import InputError
from tokenlabel.models import DenseModel, build_from, build_model, create_model
from tokenlabel.models.factory import NoWeightsError, with_any_size

OWN_MODULE = """
import timm
def tiny(num_classes=3):
    return timm.create_model("test_vit", num_classes=num_classes)
def fixed():
    return timm.create_model("test_resnet", num_classes=4)
def open_ended(**arguments):
    return timm.create_model("test_resnet", **arguments)
def number():
    return 7
def broken(width):
    return None
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module beside the user's data, which is the current folder."""
    (tmp_path / "my_models.py").write_text(OWN_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    return "my_models"


@pytest.mark.parametrize(
    ("name", "built_in"), [("test_vit", 96), ("test_resnet", None), ("efficientnet_b0", None)]
)
def test_a_size_is_given_to_the_families_that_have_one(name: str, built_in: int | None) -> None:
    with torch.device("meta"):
        model: Any = build_model(name, num_classes=3, img_size=96)
    assert model.num_classes == 3
    if built_in:
        assert model.patch_embed.img_size == (96, 96)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_vit", (64, 128)),
        ("swin_tiny_patch4_window7_224", (64, 128)),
        ("test_resnet", (48, 80)),
    ],
)
def test_any_size_where_the_family_can(name: str, size: tuple[int, int]) -> None:
    model = build_model(name, num_classes=3, any_size=True).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, *size)).shape == (1, 3)


def test_a_wrong_argument_is_named_whatever_else_was_asked() -> None:
    for options in ({}, {"img_size": 96}, {"img_size": 96, "any_size": True}):
        for name in ("test_vit", "test_resnet"):
            with pytest.raises(InputError, match=rf"cannot build {name}: .*'dpeth'"):
                build_model(name, dpeth=2, **options)
    with pytest.raises(InputError, match="cannot build test_vit"):
        build_model("test_vit", img_size=(1, 2, 3))  # type: ignore[arg-type]


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no model 'test_vitt' \(did you mean 'test_vit"):
        build_model("test_vitt")
    with pytest.raises(InputError, match=r"cannot build test_vit\.nowhere"):
        build_model("test_vit.nowhere")
    with pytest.raises(InputError, match="cannot get local-dir:"):
        build_model("local-dir:/nowhere")


def test_a_file_of_weights_is_no_name(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(
        InputError, match=f"is a file of weights: `tokenlabel convert --checkpoint {file}"
    ):
        build_model(str(file), num_classes=2)


def test_a_folder_that_timm_wrote(tmp_path: Path) -> None:
    from timm.models import save_for_hf

    source = timm.create_model("test_resnet", num_classes=5)
    save_for_hf(source, str(tmp_path / "folder"), safe_serialization=True)
    for name in (str(tmp_path / "folder"), f"local-dir:{tmp_path / 'folder'}"):
        model: Any = build_model(name, pretrained=True)
        assert torch.equal(model.fc.weight, source.fc.weight)


def test_a_function_of_the_users(own_module: str) -> None:
    assert build_model(f"{own_module}:tiny").num_classes == 3
    assert build_model(f"{own_module}:tiny", num_classes=6, img_size=64).num_classes == 6
    assert build_model(f"{own_module}:fixed", num_classes=6).num_classes == 4
    flexible = build_model(f"{own_module}:open_ended", num_classes=6, img_size=64, any_size=True)
    assert flexible.num_classes == 6
    student = create_model(f"{own_module}:fixed", 6)
    assert student(torch.zeros(2, 3, 64, 64)).logits.shape == (2, 6)
    with pytest.raises(InputError, match="returned int, which is not a model"):
        build_model(f"{own_module}:number")
    with pytest.raises(InputError, match=r"cannot build my_models:broken: .*'width'"):
        build_model(f"{own_module}:broken")
    for name in (f"{own_module}:none", "nowhere:function", f"{own_module}:timm"):
        with pytest.raises(InputError, match="is not a function"):
            build_model(name)


def test_missing_pretrained_weights_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError,
        match=r"no pretrained weights of lvvit_t \(timm has none\): give a file of weights$",
    ):
        build_model("lvvit_t", pretrained=True)

    def offline(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("Network is unreachable\nand more")

    monkeypatch.setattr("tokenlabel.models.factory.out_of_reach", lambda _: None)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(InputError, match=r"test_vit \(Network is unreachable\): give") as refused:
        create_model("test_vit", 3, pretrained=True)
    assert "\n" not in str(refused.value)
    assert isinstance(refused.value, NoWeightsError)
    sent = pickle.loads(pickle.dumps(refused.value))  # as a process of a comparison sends it
    assert (str(sent), sent.reason) == (str(refused.value), "Network is unreachable")


def test_a_checkpoint_is_read_into_the_model(tmp_path: Path) -> None:
    source = timm.create_model("test_vit", num_classes=5, img_size=96)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    model: Any = build_model("test_vit", num_classes=5, checkpoint=tmp_path / "weights.pth")
    assert torch.equal(model.head.weight, source.head.weight)
    found: Any = build_from(tmp_path / "weights.pth", "test_vit")
    assert (found.num_classes, found.patch_embed.img_size) == (5, (96, 96))
    assert torch.equal(found.pos_embed, source.pos_embed)


def test_a_copy_that_takes_any_size() -> None:
    fixed = build_model("lvvit_t", num_classes=3, img_size=64, depth=1).eval()
    flexible = with_any_size(fixed)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(flexible(images), fixed(images))
        assert flexible(torch.zeros(1, 3, 32, 96)).shape == (1, 3)
    convolutional, plain = build_model("test_resnet"), nn.Linear(2, 2)
    assert with_any_size(convolutional) is convolutional
    assert with_any_size(plain) is plain


def test_a_student_of_a_built_model_takes_no_arguments_of_a_name() -> None:
    with pytest.raises(InputError, match="this backbone is built"):
        DenseModel(build_model("test_vit"), img_size=96)
