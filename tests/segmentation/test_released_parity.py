"""Segmentation backbones give the maps that the released ones give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tokenlabel.models import build_model
from tokenlabel.recipes.segmentation import get_segmentation_recipe
from tokenlabel.segmentation.checkpoints import from_mmsegmentation
from tokenlabel.segmentation.pyramid import Pyramid

CASES = ["square", "oblong"]


def recorded(folder: Path, size: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(folder / f"segmentation_{size}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["config"]), tensors


def pyramid(config: dict[str, Any], tensors: dict[str, Tensor], size: str, **changes: Any) -> Any:
    """The published recipe's backbone at the recorded width, with the recorded weights."""
    choice = get_segmentation_recipe(f"lvvit_{size}_upernet_ade20k").model
    backbone = build_model(
        choice.backbone,
        img_size=config["img_size"],
        any_size=True,
        embed_dim=config["embed_dim"],
        num_heads=config["num_heads"],
        stem_width=config["stem_dim"],
        **(choice.kwargs | changes),
    )
    model: Any = Pyramid(backbone, choice.head).eval()
    assert model.indices == config["out_indices"]
    state = from_mmsegmentation(
        {f"backbone.{k.removeprefix('state.')}": v for k, v in tensors.items() if "state." in k}
    )
    found = model.load_state_dict({k.removeprefix("pyramid."): v for k, v in state.items()}, False)
    assert not found.unexpected_keys
    assert all(key.startswith("side_layers.") for key in found.missing_keys)
    return model


def maps(model: Any, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found: list[Tensor] = model.backbone.forward_intermediates(
            images.float(), indices=model.indices, norm=False, intermediates_only=True
        )
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", ["s", "m", "l"])
def test_feature_maps_equal_the_released_ones(released_numbers: Path, size: str, case: str) -> None:
    config, tensors = recorded(released_numbers, size)
    found = maps(pyramid(config, tensors, size), tensors[f"{case}.input"])
    for level, x in enumerate(found):
        torch.testing.assert_close(x, tensors[f"{case}.map{level}"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_side_layers_equal_the_released_ones(released_numbers: Path, case: str) -> None:
    config, tensors = recorded(released_numbers, "s")
    with torch.no_grad():
        found = pyramid(config, tensors, "s")(tensors[f"{case}.input"].float())
    found[3] = found[3].mean(1, keepdim=True)
    for level, x in enumerate(found):
        torch.testing.assert_close(x, tensors[f"{case}.side{level}"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"residual_divisor": 3.0}, {"norm_eps": 1e-5}])
def test_the_recordings_tell_other_divisors_and_epsilons_apart(
    released_numbers: Path, wrong: dict[str, float]
) -> None:
    config, tensors = recorded(released_numbers, "l")
    found = maps(pyramid(config, tensors, "l", **wrong), tensors["square.input"])
    assert not torch.allclose(found[0], tensors["square.map0"], rtol=1e-4, atol=1e-5)
