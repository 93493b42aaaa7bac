"""Checkpoints of the released layout load safely into any model that they fit."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from tokenlabel.cli.convert import convert
from tokenlabel.errors import InputError
from tokenlabel.models import (
    DenseModel,
    LVViT,
    build_from,
    create_model,
    load_weights,
    read_state_dict,
)

SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 2, "stem_width": 8}


def small(num_classes: int = 4, **arguments: Any) -> LVViT:
    return LVViT(num_classes=num_classes, **{"img_size": 64} | SMALL | arguments)


def same(state: dict[str, Tensor], model: nn.Module) -> bool:
    own = model.state_dict()
    return state.keys() == own.keys() and all(torch.equal(state[key], own[key]) for key in own)


def distinct(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value + 1 for key, value in state.items()}


LAYOUTS = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "ema first": lambda state: {"state_dict": distinct(state), "state_dict_ema": state},
    "model": lambda state: {"model": state, "args": argparse.Namespace(lr=1e-3, model="lvvit_s")},
    "module.": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("old_format", [False, True])
def test_pickled_layouts(tmp_path: Path, layout: str, old_format: bool) -> None:
    source = small()
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(
        LAYOUTS[layout](source.state_dict()), path, _use_new_zipfile_serialization=not old_format
    )
    assert same(read_state_dict(path), source)
    target = small()
    assert load_weights(target, path) == []
    assert same(source.state_dict(), target)


def test_safetensors(tmp_path: Path) -> None:
    source = small()
    safetensors.torch.save_file(source.state_dict(), tmp_path / "model.safetensors")
    assert same(read_state_dict(tmp_path / "model.safetensors"), source)


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    torch.save({"state_dict": small().state_dict(), "extra": Payload(marker)}, path)
    with pytest.raises(InputError, match=r"needs to run posix\.mkdir, which tokenlabel never does"):
        load_weights(small(), path)
    assert not marker.exists()


NO_CHECKPOINTS = {
    "list.pth": [1, 2],
    "tensor.pth": torch.zeros(2),
    "complex.pth": {"head.weight": torch.zeros(2, dtype=torch.complex64)},
    "sparse.pth": {"head.weight": torch.zeros(2).to_sparse()},
    "numbered.pth": {3: torch.zeros(2)},
    "broken.pth": b"not a checkpoint at all",
    "broken.safetensors": b"not a checkpoint at all",
    "header.safetensors": b"\x04\x00\x00\x00\x00\x00\x00\x00\xff\xfe{}",
    "latin.pth": b"\x80\x02X\x04\x00\x00\x00\xe9\xe9\xe9\xe9.",  # text that is not UTF-8
    "empty.pth": b"",
}


@pytest.mark.parametrize("name", NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    path, content = tmp_path / name, NO_CHECKPOINTS[name]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=name):
        read_state_dict(path)
    with pytest.raises(InputError, match="no checkpoint at"):
        read_state_dict(tmp_path / "nowhere.pth")


@pytest.fixture
def saved(tmp_path: Path) -> tuple[LVViT, Path]:
    source = small()
    torch.save({"state_dict": source.state_dict()}, tmp_path / "lvvit.pth")
    return source, tmp_path / "lvvit.pth"


def test_heads_of_another_class_count_are_new(saved: tuple[LVViT, Path]) -> None:
    source, path = saved
    target = small(num_classes=7)
    before = target.head.weight.clone()
    heads = ["head.weight", "head.bias", "aux_head.weight", "aux_head.bias"]
    assert load_weights(target, path) == heads
    assert torch.equal(target.head.weight, before)
    assert torch.equal(target.blocks[1].attn.qkv.weight, source.blocks[1].attn.qkv.weight)


def test_positions_are_resized_and_the_class_position_kept(saved: tuple[LVViT, Path]) -> None:
    source, path = saved
    target = small(img_size=(96, 64))
    assert load_weights(target, path) == []
    old = source.pos_embed[:, 1:].reshape(1, 4, 4, 24).permute(0, 3, 1, 2)
    new = nn.functional.interpolate(old, size=(6, 4), mode="bicubic", align_corners=False)
    assert torch.equal(target.pos_embed[:, :1], source.pos_embed[:, :1])
    torch.testing.assert_close(target.pos_embed[:, 1:], new.flatten(2).transpose(1, 2))


def test_positions_shrink_without_antialiasing(saved: tuple[LVViT, Path]) -> None:
    source, path = saved
    target = small(img_size=32)
    load_weights(target, path)
    old = source.pos_embed[:, 1:].reshape(1, 4, 4, 24).permute(0, 3, 1, 2)
    new = nn.functional.interpolate(old, size=(2, 2), mode="bicubic", align_corners=False)
    torch.testing.assert_close(target.pos_embed[:, 1:], new.flatten(2).transpose(1, 2))


def test_positions_of_no_square_grid_are_refused(tmp_path: Path) -> None:
    torch.save(small(img_size=(32, 48)).state_dict(), tmp_path / "oblong.pth")
    with pytest.raises(InputError, match="6 positions, no square grid"):
        load_weights(small(), tmp_path / "oblong.pth")


def test_a_mismatch_names_the_keys_and_changes_nothing(saved: tuple[LVViT, Path]) -> None:
    _, path = saved
    target = small(depth=3)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(InputError, match=r"blocks\.2\.norm1\.weight is missing; .* and 7 more"):
        load_weights(target, path)
    with pytest.raises(InputError, match=r"cls_token is \(1, 1, 24\), not \(1, 1, 32\)"):
        load_weights(small(embed_dim=32), path)
    with pytest.raises(InputError, match=r"blocks\.1\.norm1\.weight is unknown"):
        load_weights(small(depth=1), path)
    assert same(before, target)


def test_students_and_plain_models_read_each_others_files(tmp_path: Path) -> None:
    student = create_model("test_vit", 4)
    torch.save(student.state_dict(), tmp_path / "student.pth")
    torch.save(student.backbone.state_dict(), tmp_path / "plain.pth")
    again, plain = create_model("test_vit", 4), timm.create_model("test_vit", num_classes=4)
    assert load_weights(again, tmp_path / "student.pth") == []
    assert same(student.state_dict(), again)
    assert load_weights(plain, tmp_path / "student.pth") == []
    assert same(student.backbone.state_dict(), plain)
    token_head = ["aux_head.weight", "aux_head.bias"]
    assert load_weights(create_model("test_vit", 4), tmp_path / "plain.pth") == token_head


def test_weights_of_rgb_fit_models_of_other_channels(tmp_path: Path) -> None:
    usual = timm.create_model("test_vit", num_classes=4).eval()
    torch.save(usual.state_dict(), tmp_path / "rgb.pth")
    gray = create_model("test_vit", 4, in_chans=1).eval()
    load_weights(gray, tmp_path / "rgb.pth")
    images = torch.rand(2, 1, 160, 160)
    torch.testing.assert_close(gray(images).logits, usual(images.expand(-1, 3, -1, -1)))
    wide = create_model("test_vit", 4, in_chans=5).eval()
    load_weights(wide, tmp_path / "rgb.pth")
    torch.save(wide.state_dict(), tmp_path / "wide.pth")
    with pytest.raises(InputError, match=r"patch_embed\.proj\.weight is \(64, 5, .* not \(64, 1,"):
        load_weights(gray, tmp_path / "wide.pth")
    again = build_from(tmp_path / "wide.pth", "test_vit").eval()
    images = torch.rand(2, 5, 160, 160)
    torch.testing.assert_close(again(images), wide(images).logits)


def test_counters_that_torch_does_without_may_be_missing(tmp_path: Path) -> None:
    source = timm.create_model("test_resnet", num_classes=4)
    state = {k: v for k, v in source.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "converted.pth")
    for target in (timm.create_model("test_resnet", num_classes=4), create_model("test_resnet", 4)):
        absent = load_weights(target, tmp_path / "converted.pth")
        assert not [key for key in absent if "num_batches_tracked" in key]
    assert torch.equal(target.backbone.fc.weight, source.fc.weight)
    del state["bn1.running_mean"]
    torch.save(state, tmp_path / "converted.pth")
    with pytest.raises(InputError, match=r"fit the model: bn1\.running_mean is missing$"):
        load_weights(timm.create_model("test_resnet", num_classes=4), tmp_path / "converted.pth")


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
def test_weights_of_real_annotators_load(shared: Path, name: str) -> None:
    model = timm.create_model(name)
    assert load_weights(model, shared / "annotators" / f"{name}.safetensors") == []


def test_a_released_file_fits_a_student(saved: tuple[LVViT, Path]) -> None:
    source, path = saved
    student = DenseModel(small(num_classes=4))
    assert load_weights(student, path) == []
    assert torch.equal(student.token_head.weight, source.aux_head.weight)


def test_families_resize_by_their_own_rule(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "vit.pth")
    student = create_model("test_vit", 3, img_size=96)
    assert load_weights(student, tmp_path / "vit.pth") == ["aux_head.weight", "aux_head.bias"]


def test_convert_writes_a_folder_that_timm_loads(tmp_path: Path) -> None:
    source = timm.create_model("lvvit_t", num_classes=6, img_size=96)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "released.pth.tar")
    convert(checkpoint=tmp_path / "released.pth.tar", model="lvvit_t", output=tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "released.pth.tar"]
    loaded = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    assert same(source.state_dict(), loaded)
    student = create_model(f"local-dir:{tmp_path / 'out'}", 6, pretrained=True)
    assert student.grid(96) == (6, 6)
    assert torch.equal(student.token_head.weight, source.aux_head.weight)


def test_convert_to_another_size_and_into_no_existing_folder(tmp_path: Path) -> None:
    student = create_model("test_vit", 6)
    torch.save(student.state_dict(), tmp_path / "student.pth")
    convert(
        checkpoint=tmp_path / "student.pth", model="test_vit", output=tmp_path / "out", img_size=96
    )
    loaded = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    assert loaded.patch_embed.grid_size == (6, 6)
    assert torch.equal(loaded.head.weight, student.backbone.head.weight)
    with pytest.raises(InputError, match="exists already"):
        convert(checkpoint=tmp_path / "student.pth", model="test_vit", output=tmp_path / "out")
    with pytest.raises(InputError, match="did you mean 'test_vit'"):
        convert(checkpoint=tmp_path / "student.pth", model="testvit", output=tmp_path / "new")
    assert not (tmp_path / "new").exists()
