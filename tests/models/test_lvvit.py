"""LV-ViT computes what the released code computes, and is a full timm model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open

from tokenlabel.mixing import Mix
from tokenlabel.models import DenseModel, LVViT
from tokenlabel.output import fuse

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(params=["lvvit_stem64_skip2", "lvvit_stem128_skip3"])
def recorded(shared: Path, request: pytest.FixtureRequest) -> tuple[LVViT, dict[str, torch.Tensor]]:
    """A small LV-ViT with recorded weights, inputs and outputs."""
    with safe_open(shared / "parity" / f"{request.param}.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    stem = {"4_2": 64, "4_2_128": 128}[config.pop("p_emb")]
    model = LVViT(**config | {"stem_width": stem, "residual_divisor": config.pop("skip_lam")})
    model.load_state_dict(
        {
            key.removeprefix("state."): value
            for key, value in tensors.items()
            if key.startswith("state.")
        }
    )
    return model, tensors


def test_evaluation_equals_the_released_code(recorded: Any) -> None:
    model, tensors = recorded
    dense = DenseModel(model.eval())
    with torch.no_grad():
        features = model.forward_features(tensors["input"])
        output = dense.eval()(tensors["input"])
    torch.testing.assert_close(features, tensors["features"], **TOLERANCE)
    torch.testing.assert_close(fuse(output), tensors["eval_logits"], **TOLERANCE)


def test_training_with_mixtoken_equals_the_released_code(recorded: Any) -> None:
    model, tensors = recorded
    dense = DenseModel(model).train()
    row0, col0, row1, col1 = tensors["train_box_rows_cols"].tolist()
    share = torch.zeros(1, *dense.grid(tensors["input"].shape[-1]), dtype=torch.bool)
    share[:, row0:row1, col0:col1] = True
    mix = Mix(torch.arange(len(tensors["input"])).flip(0), share)
    output = dense(tensors["input"], mix)
    torch.testing.assert_close(output.logits, tensors["train_cls_logits"], **TOLERANCE)
    torch.testing.assert_close(
        output.tokens.flatten(1, 2), tensors["train_token_logits"], **TOLERANCE
    )


SIZES = ["t_224", "s_224", "s_384", "m_224", "m_384", "m_448", "l_288", "l_448", "l_512"]


@pytest.mark.parametrize("size", SIZES)
def test_parameter_names_and_shapes_are_the_released_ones(shared: Path, size: str) -> None:
    published = json.loads((shared / "parity" / "state_dict_shapes.json").read_text())
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
