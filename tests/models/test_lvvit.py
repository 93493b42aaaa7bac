"""LV-ViT computes what the released code computes, and is a full timm model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from timm.optim import create_optimizer_v2
from torch import nn

from tokenlabel.errors import InputError
from tokenlabel.mixing import Mix
from tokenlabel.models import DenseModel, LVViT
from tokenlabel.output import fuse

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(params=["lvvit_divisor2", "lvvit_divisor3"])
def recorded(
    released_numbers: Path, request: pytest.FixtureRequest
) -> tuple[LVViT, dict[str, torch.Tensor]]:
    """A small LV-ViT with recorded weights, inputs and outputs."""
    with safe_open(released_numbers / f"{request.param}.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    model = LVViT(**config | {"residual_divisor": config.pop("skip_lam")})
    state = {k: v for k, v in tensors.items() if k.startswith("state.")}
    model.load_state_dict({key.removeprefix("state."): value for key, value in state.items()})
    tensors["input"] = tensors["input"].float()
    return model, tensors


def test_evaluation_equals_the_released_code(recorded: Any) -> None:
    model, tensors = recorded
    dense = DenseModel(model.eval())
    with torch.no_grad():
        features = model.forward_features(tensors["input"])
        output = dense.eval()(tensors["input"])
        answer = model(tensors["input"])  # as timm's own scripts call it
    torch.testing.assert_close(answer, tensors["eval_logits"], **TOLERANCE)
    torch.testing.assert_close(features, tensors["features"], **TOLERANCE)
    torch.testing.assert_close(fuse(output), tensors["eval_logits"], **TOLERANCE)


def test_training_with_mixtoken_equals_the_released_code(recorded: Any) -> None:
    model, tensors = recorded
    dense = DenseModel(model).train()
    row0, col0, row1, col1 = tensors["box_rows_cols"].tolist()
    share = torch.zeros(1, *dense.grid(tensors["input"].shape[-1]), dtype=torch.bool)
    share[:, row0:row1, col0:col1] = True
    mix = Mix(torch.arange(len(tensors["input"])).flip(0), share)
    output = dense(tensors["input"], mix)
    torch.testing.assert_close(output.logits, tensors["train_logits"], **TOLERANCE)
    torch.testing.assert_close(output.tokens.flatten(1, 2), tensors["train_tokens"], **TOLERANCE)


SIZES = ["t_224", "s_224", "s_384", "m_224", "m_384", "m_448", "l_288", "l_448", "l_512"]


@pytest.mark.parametrize("size", SIZES)
def test_parameter_names_and_shapes_are_the_released_ones(
    released_numbers: Path, size: str
) -> None:
    published = json.loads((released_numbers / "state_dict_shapes.json").read_text())
    expected = published[f"lvvit_{size}"]
    letter, side = size.split("_")
    with torch.device("meta"):
        model = timm.create_model(f"lvvit_{letter}", img_size=int(side))
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert sum(p.numel() for p in model.parameters()) == expected["parameters"]
    for key, shape in expected["state"].items():
        assert shapes[key] == shape, key
    if len(expected["state"]) > 1:  # sizes beyond the first list only what differs
        assert shapes.keys() == expected["state"].keys()


# -- a full timm model -----------------------------------------------------------------------------

SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 4, "num_heads": 2, "num_classes": 5}


def small(**arguments: Any) -> LVViT:
    torch.manual_seed(0)
    return timm.create_model("lvvit_t", **{"img_size": 64} | SMALL | arguments).eval()


def test_registered_with_its_configuration() -> None:
    assert {"lvvit_t", "lvvit_s", "lvvit_m", "lvvit_l"} <= set(timm.list_models("lvvit*"))
    with torch.device("meta"):
        model = timm.create_model("lvvit_l", num_classes=7)
    assert model.pretrained_cfg["input_size"] == (3, 288, 288)
    assert model.pretrained_cfg["classifier"] == ("head", "aux_head")
    assert timm.data.resolve_model_data_config(model)["interpolation"] == "bicubic"


@pytest.mark.parametrize("size", [(32, 80), (48, 48), 96])
def test_any_size_that_the_patch_divides(size: Any) -> None:
    model = small(img_size=size)
    height, width = (size, size) if isinstance(size, int) else size
    output = DenseModel(model)(torch.randn(2, 3, height, width))
    assert output.tokens.shape == (2, height // 16, width // 16, 5)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(InputError, match="divides both image sides"):
        small(img_size=(64, 70))
    with pytest.raises(InputError, match="not divisible by num_heads"):
        small(num_heads=5)
    with pytest.raises(InputError, match=r"32x64 pixels, the model was built for \(64, 64\)"):
        small()(torch.randn(1, 3, 32, 64))
    with pytest.raises(InputError, match="divisible by the patch size 16"):
        small(dynamic_img_size=True)(torch.randn(1, 3, 32, 40))


def test_dynamic_image_size() -> None:
    fixed, dynamic = small(), small(dynamic_img_size=True)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(dynamic(images), fixed(images))
    assert DenseModel(dynamic)(torch.randn(2, 3, 32, 96)).tokens.shape == (2, 2, 6, 5)


def test_set_input_size_resizes_positions() -> None:
    model = small()
    model.set_input_size((32, 96))
    assert model(torch.randn(1, 3, 32, 96)).shape == (1, 5)


def test_intermediate_features() -> None:
    model = small()
    images = torch.randn(2, 3, 64, 64)
    final, maps = model.forward_intermediates(images, indices=[1, 3], norm=True)
    assert [m.shape for m in maps] == [(2, 24, 4, 4)] * 2
    assert torch.equal(final, model.forward_features(images))
    assert torch.equal(maps[1].flatten(2).transpose(1, 2), final[:, 1:])
    assert torch.equal(model.forward_head(final), model(images))
    backbone = small(features_only=True, out_indices=(1, 3))
    assert backbone.feature_info.channels() == [24, 24]
    assert backbone.feature_info.reduction() == [16, 16]
    assert [m.shape for m in backbone(images)] == [(2, 24, 4, 4)] * 2


def test_classifier_comes_and_goes() -> None:
    model = small()
    assert model.get_classifier() is model.head
    model.reset_classifier(9)
    assert (model.head.out_features, model.aux_head.out_features) == (9, 9)
    model.reset_classifier(0)
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 24)


def test_layer_decay_groups_deepen_with_the_blocks() -> None:
    model = small()
    groups = create_optimizer_v2(
        model, "adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5
    ).param_groups
    scale, decay = {}, {}
    names = {id(p): name for name, p in model.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            scale[names[id(parameter)]] = group["lr_scale"]
            decay[names[id(parameter)]] = group["weight_decay"]
    order = ["patch_embed.conv1.weight", *(f"blocks.{i}.mlp.fc1.weight" for i in range(4))]
    assert [scale[name] for name in [*order, "head.weight"]] == [0.5**k for k in (5, 4, 3, 2, 1, 0)]
    assert scale["pos_embed"] == scale["cls_token"] == 0.5**5
    assert scale["aux_head.weight"] == 1
    undecayed = {"pos_embed", "cls_token", "blocks.0.norm1.weight", "blocks.0.attn.proj.bias"}
    assert {decay[name] for name in undecayed} == {0}


def test_gradient_checkpointing_changes_no_gradient() -> None:
    images = torch.randn(2, 3, 64, 64)
    gradients = []
    for enable in (False, True):
        model = small().train()
        model.set_grad_checkpointing(enable)
        assert model.grad_checkpointing is enable
        model(images).square().sum().backward()
        gradients.append(model.patch_embed.conv1.weight.grad)
    assert torch.equal(gradients[0], gradients[1])


def test_attention_is_fused() -> None:
    model = small()
    assert all(block.attn.fused_attn for block in model.blocks)
    with torch.profiler.profile() as profile:
        model(torch.randn(1, 3, 64, 64))
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls["aten::scaled_dot_product_attention"] == 4


def test_residual_branches_are_divided() -> None:
    """With the branches' last layers silent but for a bias, each block adds 2 * bias / divisor."""
    for divisor in (1.0, 3.0):
        model = small(residual_divisor=divisor, depth=1)
        for layer in (model.blocks[0].attn.proj, model.blocks[0].mlp.fc2):
            nn.init.zeros_(layer.weight)
            nn.init.ones_(layer.bias)
        x = torch.randn(1, 3, 24)
        torch.testing.assert_close(model.blocks(x), x + 2 / divisor)


def test_drop_path_rises_linearly() -> None:
    model = small(drop_path_rate=0.3)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_exports_to_a_graph() -> None:
    model = DenseModel(small()).eval()
    images = torch.randn(2, 3, 64, 64)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
    more = torch.randn(5, 3, 64, 64)
    exported, expected = program.module()(more), model(more)
    torch.testing.assert_close(tuple(exported), tuple(expected))
