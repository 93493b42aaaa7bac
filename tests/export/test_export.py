"""Exported models give what the model gives, and load where this package is not."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import timm
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from tokenlabel.cli.export import export
from tokenlabel.cli.push import push
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.evaluation.load import load_classifier
from tokenlabel.export import programs
from tokenlabel.export.programs import export_onnx, export_torch
from tokenlabel.models import DenseModel
from tokenlabel.output import fuse

NAMES = ("ant", "bee", "cow", "dog", "eel", "fox", "gnu")
TINY = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2}


def classifier(name: str, size: int = 32, **arguments: Any) -> Classifier:
    torch.manual_seed(0)
    model = DenseModel(name, len(NAMES), **arguments).eval().requires_grad_(False)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    settings = Preprocessing((size, size), 0.8, "bilinear", mean, std)
    return Classifier(model, settings, NAMES, has_tokens=True, facts={"model": name})


@pytest.mark.parametrize(
    ("name", "arguments", "sizes"),
    [
        ("lvvit_t", TINY, [(32, 32), (48, 80)]),  # positions resized inside the program
        pytest.param("test_resnet", {}, [(64, 64), (96, 32)], marks=pytest.mark.slow),
    ],
)
def test_onnx_takes_any_batch_and_size(
    tmp_path: Path, name: str, arguments: dict, sizes: list[tuple[int, int]]
) -> None:
    file = tmp_path / "model.onnx"
    found = classifier(name, sizes[0][0], **arguments)
    assert export_onnx(found, file, dynamic_size=True) < 1e-4
    model = found.model
    if arguments:
        model = DenseModel(name, len(NAMES), **arguments, dynamic_img_size=True).eval()
        model.load_state_dict(found.model.state_dict())
    session = onnxruntime.InferenceSession(str(file))
    for batch, size in enumerate(sizes, start=1):
        images = torch.randn(batch, 3, *size)
        with torch.no_grad():
            output = model(images)
        given = session.run(["logits", "tokens", "fused"], {"images": images.numpy()})
        for mine, theirs in zip((*output, fuse(output)), given, strict=True):
            torch.testing.assert_close(torch.from_numpy(theirs), mine, rtol=0, atol=1e-4)
    notes = {entry.key: entry.value for entry in onnx.load(str(file)).metadata_props}
    assert json.loads(notes["tokenlabel"])["classes"] == list(NAMES)


def test_a_torch_program_gives_what_the_model_gives(tmp_path: Path) -> None:
    file, found = tmp_path / "model.pt2", classifier("test_vit", 160)
    export_torch(found, file)
    images = torch.randn(5, 3, 160, 160)
    with torch.no_grad():
        output = found.model(images)
        logits, tokens, fused = torch.export.load(file).module()(images)
    torch.testing.assert_close(logits, output.logits)
    torch.testing.assert_close(tokens, output.tokens)
    torch.testing.assert_close(fused, fuse(output))


def test_a_program_that_differs_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_TOLERANCE", -1.0)
    with pytest.raises(InputError, match="the exported model differs"):
        export_torch(classifier("test_resnet", 32), tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """Weights of a plain ViT with a taught token head."""
    file = tmp_path / "student.safetensors"
    save_file(classifier("test_vit", 160).model.state_dict(), file)
    return file


def test_plain_timm_loads_a_student_without_this_package(student: Path, tmp_path: Path) -> None:
    export(checkpoint=student, model="test_vit", output=tmp_path / "folder")
    script = (
        "import sys, timm, torch; from safetensors.torch import save_file;"
        "folder, out = sys.argv[1:];"
        "a = timm.create_model('local-dir:' + folder, pretrained=True).eval();"
        "b = timm.create_model('test_vit', pretrained=True, num_classes=7, pretrained_cfg_overlay="
        "dict(file=folder + '/model.safetensors', num_classes=7)).eval();"
        "x = torch.ones(1, 3, 160, 160); assert 'tokenlabel' not in sys.modules;"
        "save_file({'a': a(x).detach(), 'b': b(x).detach()}, out)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "folder"), str(tmp_path / "out")]
    # an empty folder on the path in the package's stead: importing it would fail
    (tmp_path / "path").mkdir()
    subprocess.run(command, check=True, cwd=tmp_path / "path", env={"HOME": str(tmp_path)})
    found = load_classifier(student, "test_vit").model(torch.ones(1, 3, 160, 160)).logits
    from safetensors.torch import load_file

    for logits in load_file(tmp_path / "out").values():
        torch.testing.assert_close(logits, found)


def test_a_timm_folder_keeps_everything_for_this_package(tmp_path: Path) -> None:
    from tokenlabel.export.timm_folder import export_timm

    mine = classifier("test_vit", 160)
    export_timm(mine, tmp_path / "folder")
    found = load_classifier(tmp_path / "folder")
    assert found.class_names == NAMES
    assert found.preprocessing == mine.preprocessing
    assert found.has_tokens
    images = torch.randn(1, 3, 160, 160)
    torch.testing.assert_close(found.model(images).tokens, mine.model(images).tokens)


def test_a_timm_folder_in_half_the_space_loads_with_its_token_head(
    student: Path, tmp_path: Path
) -> None:
    for dtype in ("float32", "bfloat16"):
        export(checkpoint=student, model="test_vit", output=tmp_path / dtype, dtype=dtype)
    whole, half = (load_classifier(tmp_path / dtype) for dtype in ("float32", "bfloat16"))
    sizes = [(tmp_path / d / "model.safetensors").stat().st_size for d in ("float32", "bfloat16")]
    assert sizes[1] < 0.6 * sizes[0]
    assert half.model.aux_head is not None
    for mine, theirs in zip(half.model.parameters(), whole.model.parameters(), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, theirs.bfloat16().float(), rtol=0, atol=0)
    assert "local-dir:bfloat16" in (tmp_path / "bfloat16" / "README.md").read_text()


def test_a_timm_folder_knows_that_nothing_taught_its_token_head(tmp_path: Path) -> None:
    from tokenlabel.export.timm_folder import export_timm

    for taught in (True, False):
        mine = dataclasses.replace(classifier("lvvit_t", **TINY), has_tokens=taught)
        export_timm(mine, tmp_path / str(taught))
        assert load_classifier(tmp_path / str(taught)).has_tokens == taught


class _Hub:
    """Stands in for the hub: what was created and uploaded."""

    repositories: list[str]
    files: dict[str, bytes]

    def __init__(self, **_options: Any) -> None:
        pass

    def create_repo(self, name: str, **_options: Any) -> None:
        _Hub.repositories = [name]

    def upload_folder(self, *, repo_id: str, folder_path: Path, **_options: Any) -> str:
        assert _Hub.repositories == [repo_id]
        _Hub.files = {file.name: file.read_bytes() for file in folder_path.iterdir()}
        return "commit"


def test_push_uploads_weights_and_a_card(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", _Hub)
    push(repository="me/ants", checkpoint=student, model="test_vit")
    assert set(_Hub.files) == {
        "model.safetensors",
        "config.json",
        "token_head.safetensors",
        "README.md",
    }
    card = _Hub.files["README.md"].decode()
    header = ModelCard(card).data
    assert header.tags == ["image-classification", "timm", "token-labeling"]
    assert (header.license, header.library_name) == ("apache-2.0", "timm")
    assert 'timm.create_model("hf-hub:me/ants", pretrained=True)' in card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "model.onx", "form": "onnx"}, "ends in .onnx"),
        ({"output": ".", "form": "timm"}, "exists already"),
        ({"output": "x.onnx", "dtype": "bfloat16"}, "--dtype is for timm folders"),
        ({"output": "folder", "dynamic_size": True}, "--dynamic-size is for programs"),
    ],
)
def test_mistakes_are_named(student: Path, options: dict, message: str) -> None:
    options["output"] = Path(options["output"])
    with pytest.raises(InputError, match=message):
        export(checkpoint=student, model="test_vit", **options)


def test_a_repository_has_an_owner(student: Path) -> None:
    with pytest.raises(InputError, match="owner/name"):
        push(repository="ants", checkpoint=student, model="test_vit")


def test_released_architectures_need_this_package_and_say_so(tmp_path: Path) -> None:
    """LV-ViT is registered in timm by this package; its folder loads once that is imported."""
    from tokenlabel.export.timm_folder import export_timm

    mine = classifier("lvvit_t", **TINY)
    export_timm(mine, tmp_path / "folder")
    assert not (tmp_path / "folder" / "token_head.safetensors").exists()
    loaded = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(loaded(images), fuse(mine.model(images)))


@pytest.mark.parametrize(("name", "arguments"), [("lvvit_t", TINY), ("test_resnet", {})], ids=str)
def test_the_code_of_a_card_runs(tmp_path: Path, name: str, arguments: dict) -> None:
    from tokenlabel.export.card import model_card
    from tokenlabel.export.timm_folder import export_timm

    mine = classifier(name, **arguments)
    card = model_card(mine, "folder")
    export_timm(mine, tmp_path / "folder", card)
    code = card.split("```python\n")[1].split("```")[0]
    assert ("tokenlabel" in code) == (name == "lvvit_t")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_plain_timm_adds_no_token_head_that_nothing_taught(tmp_path: Path) -> None:
    """LV-ViT and VOLO add their token head by themselves."""
    from tokenlabel.export.timm_folder import export_timm

    mine = dataclasses.replace(classifier("lvvit_t", **TINY), has_tokens=False)
    before = mine.model.token_head.weight.clone()
    export_timm(mine, tmp_path / "folder")
    loaded = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(loaded(images), mine.model(images).logits)
    assert torch.equal(mine.model.token_head.weight, before)
    assert not load_classifier(tmp_path / "folder").has_tokens
