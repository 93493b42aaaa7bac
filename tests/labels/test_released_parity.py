"""The `released` targets against the released code's own numbers, and against their definition."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torchvision.ops import roi_align

from tokenlabel import Box, LabelMap, View, token_targets
from tokenlabel.labels import TargetKind

FILES = ["any_crop", "any_crop_nosmooth", "square_crop"]


def dense_released(
    scores: Tensor, ids: Tensor, crop: Box, n: int, classes: int, eps: float
) -> Tensor:
    """The definition: [C, 1 + n * n] targets of one image (released code, x and y right)."""
    logits = torch.zeros(classes, *scores.shape[1:]).scatter_(0, ids.long(), scores.float())
    side = scores.shape[-1]
    roi = torch.tensor([[0.0, *(edge * side - 0.5 for edge in crop.as_tuple())]])
    tokens, whole = (
        roi_align(logits[None], roi, size, 1.0, -1, False)[0].flatten(1) for size in (n, 1)
    )
    return torch.cat([whole, tokens], 1).softmax(0) * (1 - eps + eps / classes) + eps / classes


def label_map(scores: Tensor, ids: Tensor, classes: int) -> LabelMap:
    return LabelMap(scores.float(), ids.long(), None, Box(), classes)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("kind", "name"), [("released", "target_xy"), ("released-transposed", "target_released")]
)
def test_equal_to_the_released_code(
    released_numbers: Path, file: str, kind: TargetKind, name: str
) -> None:
    with safe_open(released_numbers / f"target_{file}.safetensors", "pt") as stored:
        settings = {
            key: json.loads(value) for key, value in stored.metadata().items() if key != "note"
        }
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    maps = [
        label_map(scores, ids, settings["num_classes"])
        for scores, ids in zip(tensors["scores"], tensors["ids"], strict=True)
    ]
    edges = [tensors[key].tolist() for key in ("top", "left", "height", "width")]
    views = [
        View.crop(Box(left, top, left + width, top + height))
        for top, left, height, width in zip(*edges, strict=True)
    ]
    grid = (settings["label_size"],) * 2
    target = token_targets(maps, views, grid, kind=kind, smoothing=settings["smoothing"])
    expected = tensors[name][:, :, 1:].transpose(1, 2)
    torch.testing.assert_close(target.dense(), expected, atol=1e-5, rtol=0)
    assert target.mask.all()


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("flip", [False, True])
def test_equal_to_the_definition(eps: float, flip: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    dense = torch.randn(3, 25, 9, 9, generator=generator) * 4
    maps = [LabelMap.from_logits(logits, 4, Box()) for logits in dense]
    boxes = [Box(0.1, 0.3, 0.5, 0.6), Box(0, 0, 1, 1), Box(0.52, 0.11, 0.99, 0.93)]
    views = [View.crop(box) for box in boxes]
    views = [view.then(View.hflip()) for view in views] if flip else views
    target = token_targets(maps, views, (6, 6), kind="released", smoothing=eps).dense()
    for i, box in enumerate(boxes):
        expected = dense_released(maps[i].scores, maps[i].classes, box, 6, 25, eps).T
        if flip:
            tokens = expected[1:].reshape(6, 6, 25).flip(1).reshape(36, 25)
            expected = torch.cat([expected[:1], tokens])
        torch.testing.assert_close(target[i], expected, atol=1e-6, rtol=1e-5)


def test_unlike_the_transposed_reading_where_crops_are_not_square() -> None:
    maps = [LabelMap.from_logits(torch.randn(25, 9, 9) * 4, 4, Box())]
    views = [View.crop(Box(0.5, 0.0, 1.0, 0.5))]
    right, wrong = (
        token_targets(maps, views, (6, 6), kind=kind).dense()
        for kind in ("released", "released-transposed")
    )
    assert (right - wrong).abs().max() > 0.1
    with pytest.raises(ValueError, match="crops and flips only"):
        token_targets(maps, [View.rotation(5, 1.0)], (6, 6), kind="released-transposed")
