"""LV-ViT in timm's own hands: the checks of timm's tests/test_models.py.

On a small model in every run, on the four published ones in the slow set.

The list follows that file: forward, backward, default_cfgs, TorchScript, features_only,
forward_intermediates, fx; and what its users do besides: other channels, classes and sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm import set_scriptable
from timm.models import FeatureInfo, get_notrace_functions, get_notrace_modules
from torch import Tensor
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import tokenlabel  # noqa: F401  (registers LV-ViT)

Build = Callable[..., Any]

SMALL = {"img_size": 32, "embed_dim": 24, "depth": 4, "num_heads": 2, "stem_width": 8}


def images(model: Any, count: int = 1) -> Tensor:
    return torch.randn(count, *model.default_cfg["input_size"])


@pytest.fixture(
    params=[
        "small",
        *(pytest.param(f"lvvit_{size}", marks=pytest.mark.slow) for size in "tsml"),
    ]
)
def build(request: pytest.FixtureRequest) -> Build:
    """`timm.create_model` of one architecture."""
    torch.manual_seed(0)
    if request.param != "small":
        return lambda **arguments: timm.create_model(request.param, **arguments)

    def small(**arguments: Any) -> Any:
        overlay = {"input_size": (3, 32, 32)}
        return timm.create_model(
            "lvvit_t", **(SMALL | {"pretrained_cfg_overlay": overlay} | arguments)
        )

    return small


def test_forward(build: Build) -> None:
    model = build().eval()
    pixels = images(model)
    with torch.no_grad():
        logits = model(pixels)
        assert logits.shape == (1, 1000)
        assert logits.isfinite().all()
        model.set_grad_checkpointing()
    torch.testing.assert_close(model(pixels), logits, rtol=1e-4, atol=1e-5)


def test_backward_reaches_every_parameter(build: Build) -> None:
    model = build(num_classes=42).train()
    logits = model(images(model, 2))
    logits.mean().backward()
    assert logits.shape == (2, 42)
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_default_cfgs(build: Build) -> None:
    model = build().eval()
    pixels, names = images(model), set(model.state_dict())
    assert model.num_features == model.head_hidden_size == model.embed_dim
    for part in (*model.default_cfg["classifier"], model.default_cfg["first_conv"]):
        assert f"{part}.weight" in names
    with torch.no_grad():
        features = model.forward_features(pixels)
        pooled = model.forward_head(features, pre_logits=True)
        assert features.shape[-1] == model.num_features
        assert pooled.shape == (1, model.head_hidden_size)
        model.reset_classifier(0)
        assert model.num_classes == 0
        assert torch.equal(model(pixels), pooled)
        model.reset_classifier(0, "")
        assert torch.equal(model(pixels), features)
        model.reset_classifier(7, "token")
        assert model(pixels).shape == (1, 7)
        assert build(num_classes=0, global_pool="").eval()(pixels).shape == features.shape
        assert build(num_classes=0).eval()(pixels).shape == pooled.shape


def test_torchscript(build: Build) -> None:
    with set_scriptable(True):
        model = build().eval()
    pixels = images(model)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(model)(pixels), model(pixels))


def test_fx(build: Build) -> None:
    model = build().eval()
    pixels = images(model)
    tracing = {
        "leaf_modules": get_notrace_modules(),
        "autowrap_functions": get_notrace_functions(),
        "param_shapes_constant": True,
    }
    _, nodes = get_graph_node_names(model, tracer_kwargs=tracing)
    with torch.inference_mode():
        traced = create_feature_extractor(model, [nodes[-1]], tracer_kwargs=tracing)
        (found,) = traced(pixels).values()
        assert torch.equal(found, model(pixels))


def test_features_only(build: Build) -> None:
    model = build(features_only=True).eval()
    with torch.no_grad():
        maps = model(torch.randn(1, *model.default_cfg["input_size"]))
    assert len(maps) == 3
    for channels, reduction, found in zip(
        model.feature_info.channels(), model.feature_info.reduction(), maps, strict=True
    ):
        side = model.default_cfg["input_size"][-1] // reduction
        assert found.shape == (1, channels, side, side)


def test_forward_intermediates(build: Build) -> None:
    model = build().eval()
    pixels = images(model)
    info = FeatureInfo(model.feature_info, len(model.feature_info))
    with torch.no_grad():
        final, maps = model.forward_intermediates(pixels, output_fmt="NCHW")
        assert torch.equal(final, model.forward_features(pixels))
        model.set_grad_checkpointing()
        again, _ = model.forward_intermediates(pixels, output_fmt="NCHW")
    torch.testing.assert_close(again, final, rtol=1e-4, atol=1e-5)
    assert [found.shape[1] for found in maps] == info.channels()
    assert len(maps) == len(model.blocks)


def test_channels_and_sizes(build: Build) -> None:
    with torch.no_grad():
        grey = build(in_chans=1).eval()
        side = grey.default_cfg["input_size"][-1]
        assert grey(torch.randn(1, 1, side, side)).shape == (1, 1000)
        flexible = build(dynamic_img_size=True).eval()
        assert flexible(torch.randn(1, 3, 48, 80)).shape == (1, 1000)
        flexible.set_input_size((64, 32))
        assert flexible(torch.randn(1, 3, 64, 32)).shape == (1, 1000)


def test_the_answer_is_the_published_rule(build: Build) -> None:
    model = build().eval()
    pixels = images(model)
    with torch.no_grad():
        features = model.forward_features(pixels)
        best = model.aux_head(features[:, 1:]).amax(1)
        torch.testing.assert_close(model(pixels), model.head(features[:, 0]) + 0.5 * best)


@pytest.mark.parametrize(("size", "crop"), [("t", 0.9), ("s", 0.9), ("m", 1.0), ("l", 1.0)])
def test_test_crops_are_the_published_ones(size: str, crop: float) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"lvvit_{size}")
    assert timm.data.resolve_model_data_config(model)["crop_pct"] == crop
