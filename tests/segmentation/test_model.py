"""Heads on backbones of every kind: shapes, published sizes, released names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.models import create_model
from torch import Tensor, nn

from tokenlabel.errors import InputError
from tokenlabel.models import build_model
from tokenlabel.runs.recipe import Optimizer
from tokenlabel.segmentation.checkpoints import from_mmsegmentation, load_segmentation_weights
from tokenlabel.segmentation.model import SegmentationModel
from tokenlabel.segmentation.pyramid import Pyramid
from tokenlabel.segmentation.recipe import HeadKind
from tokenlabel.training.optimize import create_optimizer

THIN = {"depth": 4, "embed_dim": 24, "num_heads": 2, "stem_width": 8}


def thin_lvvit(**arguments: object) -> nn.Module:
    return build_model("lvvit_t", img_size=64, any_size=True, **(THIN | arguments))


@pytest.mark.parametrize(
    ("name", "channels", "millions"),
    [("lvvit_s", 256, 44), ("lvvit_m", 256, 77), ("lvvit_l", 512, 209)],
)
def test_upernet_has_the_published_number_of_parameters(
    name: str, channels: int, millions: int
) -> None:
    """At the backbone's own image size; positions for crops of 512 add 0.3 M to S."""
    with torch.device("meta"):
        model = SegmentationModel(build_model(name, any_size=True), 150, channels=channels)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize(
    ("name", "taps"),
    [("lvvit_s", [6, 9, 12, 15]), ("lvvit_m", [10, 13, 16, 19]), ("lvvit_l", [14, 17, 20, 23])],
)
def test_plain_backbones_are_tapped_at_the_published_blocks(name: str, taps: list[int]) -> None:
    with torch.device("meta"):
        assert Pyramid(build_model(name, any_size=True), "upernet").indices == taps


@pytest.mark.parametrize(
    ("head", "strides"), [("upernet", (4, 8, 16, 16)), ("fcn", (16, 16, 16, 8))]
)
def test_side_layers_make_the_published_strides(head: HeadKind, strides: tuple[int, ...]) -> None:
    pyramid = Pyramid(thin_lvvit(), head).eval()
    maps = pyramid(torch.randn(1, 3, 64, 96))
    assert [x.shape[1] for x in maps] == list(pyramid.channels)
    assert [64 // x.shape[2] for x in maps] == list(strides)
    assert [96 // x.shape[3] for x in maps] == list(strides)


@pytest.mark.parametrize(
    ("patch", "head", "strides"),
    [
        (8, "upernet", (4, 8, 8, 8)),
        (4, "upernet", (4, 4, 4, 4)),
        (8, "fcn", (8, 8, 8, 8)),
        (4, "fcn", (4, 4, 4, 4)),
    ],
)
def test_maps_of_fine_patches_are_not_enlarged_beyond_the_published_strides(
    patch: int, head: HeadKind, strides: tuple[int, ...]
) -> None:
    pyramid = Pyramid(thin_lvvit(patch_size=patch), head).eval()
    maps = pyramid(torch.randn(1, 3, 64, 96))
    assert [64 // x.shape[2] for x in maps] == list(strides)


@pytest.mark.parametrize(
    "name",
    [
        "resnet10t",
        "convnext_atto",
        "swin_tiny_patch4_window7_224",
        "pvt_v2_b0",
        "mobilenetv3_small_050",
    ],
)
def test_hierarchical_backbones_serve_directly(name: str) -> None:
    with torch.device("meta"):
        pyramid = Pyramid(build_model(name, any_size=True), "upernet").eval()
        maps = pyramid(torch.empty(1, 3, 128, 192))
    assert pyramid.side_layers is None
    assert pyramid.divisor == 32
    assert [128 // x.shape[2] for x in maps] == [4, 8, 16, 32]
    assert [x.shape[1] for x in maps] == list(pyramid.channels)


def test_taps_equal_what_the_blocks_compute() -> None:
    backbone = thin_lvvit().eval()
    images = torch.randn(2, 3, 64, 64)
    expected = []
    for block in backbone.blocks:
        block.register_forward_hook(lambda _m, _a, output: expected.append(output))
    backbone.forward_features(images)
    pyramid = Pyramid(backbone, "upernet").eval()
    maps = backbone.forward_intermediates(
        images, indices=pyramid.indices, norm=False, intermediates_only=True
    )
    for x, tokens in zip(maps, expected[:4], strict=True):
        assert torch.equal(x.flatten(2).transpose(1, 2), tokens[:, 1:])


@pytest.mark.parametrize("head", ["upernet", "fcn"])
@pytest.mark.parametrize("size", [(64, 64), (50, 71)])
def test_scores_have_the_size_of_the_images(head: HeadKind, size: tuple[int, int]) -> None:
    model = SegmentationModel(thin_lvvit(), 5, head=head, channels=8).eval()
    images = torch.randn(2, 3, *size)
    scores = model(images)
    both = model.forward_heads(images)
    assert scores.shape == both.auxiliary.shape == (2, 5, *size)
    assert torch.equal(scores, both.logits)


def test_every_parameter_trains() -> None:
    """An idle parameter would stop distributed training."""
    model = SegmentationModel(thin_lvvit(), 5, channels=8).train()
    output = model.forward_heads(torch.randn(2, 3, 64, 64))
    (output.logits.square().sum() + output.auxiliary.square().sum()).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert idle == []


def test_backbones_without_maps_are_refused() -> None:
    with pytest.raises(InputError, match="a backbone of 3 blocks is too shallow"):
        Pyramid(thin_lvvit(depth=3), "upernet")
    with pytest.raises(InputError, match=r"maps of strides \[8, 16, 32\]"):
        Pyramid(create_model("pit_ti_224"), "upernet")
    blind = create_model("resnet10t")
    blind.forward_intermediates = None
    with pytest.raises(InputError, match="gives no intermediate maps"):
        Pyramid(blind, "upernet")


def test_layer_decay_and_weight_decay_reach_through_to_the_backbone() -> None:
    model = SegmentationModel(thin_lvvit(), 5, channels=8)
    optimizer = create_optimizer(model, Optimizer(lr=1.0, weight_decay=0.1, layer_decay=0.5))
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    rates, decays = {}, {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            rates[named[id(parameter)]] = group["lr_scale"]
            decays[named[id(parameter)]] = group["weight_decay"]
    assert rates["decode_head.classifier.weight"] == rates["pyramid.side_layers.0.0.weight"] == 1
    assert rates["pyramid.backbone.blocks.3.mlp.fc1.weight"] == 0.5
    assert rates["pyramid.backbone.blocks.0.mlp.fc1.weight"] == 0.5**4
    assert rates["pyramid.backbone.patch_embed.proj.weight"] == 0.5**5
    assert decays["pyramid.backbone.pos_embed"] == 0
    assert decays["pyramid.backbone.blocks.3.mlp.fc1.weight"] == 0.1


# -- checkpoints -----------------------------------------------------------------------------------

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def conv_module(name: str) -> list[str]:
    return [f"{name}.conv.weight", *(f"{name}.bn.{part}" for part in NORM)]


def released_head_names() -> list[str]:
    """mmsegmentation's names of a UPerHead and its auxiliary FCNHead, written out."""
    modules = [f"decode_head.psp_modules.{i}.1" for i in range(4)]
    modules += [f"decode_head.lateral_convs.{i}" for i in range(3)]
    modules += [f"decode_head.fpn_convs.{i}" for i in range(3)]
    modules += ["decode_head.bottleneck", "decode_head.fpn_bottleneck", "auxiliary_head.convs.0"]
    ends = [f"{head}_head.conv_seg.{part}" for head in ("decode", "auxiliary") for part in NORM[:2]]
    return [*ends, *(name for module in modules for name in conv_module(module))]


def released_side_names() -> list[str]:
    """The names of the released side layers of UPerNet, written out."""
    parts = {1: (0, 3), 2: (0, 3), 3: (0,), 4: (0,)}
    names = []
    for layer, places in parts.items():
        for place in places:
            names.append(f"backbone.side_layer{layer}.{place}.weight")
            names += [f"backbone.side_layer{layer}.{place + 1}.{part}" for part in NORM]
    return names


def test_names_of_released_checkpoints_cover_the_published_model(released_numbers: Path) -> None:
    listed = json.loads((released_numbers / "state_dict_shapes.json").read_text())
    backbone = [
        f"backbone.{name}"
        for name in listed["lvvit_s_224"]["state"]
        if not name.startswith(("head.", "aux_head.", "norm."))
    ]
    released = [*backbone, *released_side_names(), *released_head_names()]
    with torch.device("meta"):
        model = SegmentationModel(build_model("lvvit_s", any_size=True), 150, channels=256)
    renamed = from_mmsegmentation(dict.fromkeys(released, torch.empty(0)))
    assert {*renamed, "log_weights"} == set(model.state_dict())


@pytest.fixture
def released(tmp_path: Path) -> Callable[..., Path]:
    """Writes a thin model's weights as mmsegmentation would, with changes."""

    def write(model: SegmentationModel, **changes: Tensor | None) -> Path:
        state = {}
        for key, value in model.state_dict().items():
            name = key.replace("pyramid.backbone.", "backbone.")
            name = name.replace(".classifier.", ".conv_seg.").replace(".batch_norm.", ".bn.")
            for layer in range(4):
                name = name.replace(
                    f"pyramid.side_layers.{layer}.", f"backbone.side_layer{layer + 1}."
                )
            state[name] = value.clone()
        for name, value in changes.items():
            key = name.replace("__", ".")
            if value is None:
                del state[key]
            else:
                state[key] = value
        file = tmp_path / "released.pth"
        torch.save({"state_dict": state, "meta": {"epoch": 1}, "optimizer": {}}, file)
        return file

    return write


def test_released_checkpoints_give_the_same_scores(released: Callable[..., Path]) -> None:
    torch.manual_seed(1)
    source = SegmentationModel(thin_lvvit(), 5, channels=8).eval()
    model = SegmentationModel(thin_lvvit(), 5, channels=8).eval()
    images = torch.randn(1, 3, 64, 64)
    assert not torch.equal(model(images), source(images))
    load_segmentation_weights(model, released(source))
    assert torch.equal(model(images), source(images))


def test_positions_are_resized_to_the_crop(released: Callable[..., Path]) -> None:
    source = SegmentationModel(thin_lvvit(), 5, channels=8)
    larger = SegmentationModel(
        build_model("lvvit_t", img_size=(96, 64), any_size=True, **THIN), 5, channels=8
    )
    load_segmentation_weights(larger, released(source))
    assert larger.pyramid.backbone.pos_embed.shape[1] == 1 + 6 * 4


def test_missing_and_extra_names_are_told(released: Callable[..., Path]) -> None:
    model = SegmentationModel(thin_lvvit(), 5, channels=8)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    file = released(
        SegmentationModel(thin_lvvit(), 5, channels=8),
        backbone__side_layer3__0__weight=None,
        decode_head__extra=torch.zeros(1),
        auxiliary_head__conv_seg__bias=torch.zeros(7),
    )
    with pytest.raises(InputError) as error:
        load_segmentation_weights(model, file)
    message = str(error.value)
    assert "pyramid.side_layers.2.0.weight is missing" in message
    assert "decode_head.extra is unknown" in message
    assert "auxiliary_head.classifier.bias is (7,), not (5,)" in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_own_checkpoints_load(tmp_path: Path) -> None:
    source = SegmentationModel(thin_lvvit(), 5, head="fcn", channels=8)
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    model = SegmentationModel(thin_lvvit(), 5, head="fcn", channels=8)
    load_segmentation_weights(model, tmp_path / "own.safetensors")
    for key, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[key])
