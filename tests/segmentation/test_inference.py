"""Sliding windows, scales, mirror images and tiles, against a plain pass over the whole image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.errors import InputError
from tokenlabel.geometry import View
from tokenlabel.geometry.render import render
from tokenlabel.models import arithmetic
from tokenlabel.segmentation.augment import scaled_size
from tokenlabel.segmentation.inference import Inference, Segmenter

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Looks(nn.Module):
    """Scores that depend on a neighbourhood and on all that the window shows."""

    def __init__(self, classes: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.near = nn.Conv2d(3, classes, 5, padding=2)
        self.all = nn.Linear(3, classes)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shapes.append(tuple(images.shape))
        return 4 * self.near(images) + self.all(images.mean((2, 3)))[:, :, None, None]


def photo(rows: int, cols: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (rows // 8 + 1, cols // 8 + 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:rows, :cols])


@torch.no_grad()
def plain(model: nn.Module, image: np.ndarray, plan: Inference) -> np.ndarray:
    """The definition: every window, scale and mirror image over the whole picture at once."""
    total: Tensor | float = 0.0
    size = (image.shape[0], image.shape[1])
    for scale in plan.scales:
        shown = render(image, View.identity(), scaled_size(size, plan.short_side, scale=scale))
        x = torch.from_numpy(shown).permute(2, 0, 1).float()[None] / 255
        x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        for mirrored in (False, True) if plan.flip else (False,):
            y = x.flip(3) if mirrored else x
            height, width = y.shape[2:]
            h, w = min(plan.window or height, height), min(plan.window or width, width)
            sums, hits = 0.0, torch.zeros(1, 1, height, width)
            for top in range(0, height, plan.stride):
                for left in range(0, width, plan.stride):
                    top_, left_ = min(top, height - h), min(left, width - w)
                    pad = (left_, width - w - left_, top_, height - h - top_)
                    part = y[:, :, top_ : top_ + h, left_ : left_ + w]
                    sums = sums + F.pad(model(part), pad)
                    hits += F.pad(torch.ones(1, 1, h, w), pad)
                    if left + w >= width:
                        break
                if top + h >= height:
                    break
            scores = F.interpolate(sums / hits, size, mode="bilinear", align_corners=False)
            scores = scores.softmax(1)
            total = total + (scores.flip(3) if mirrored else scores)
    assert isinstance(total, Tensor)
    return total[0].argmax(0).numpy()


PLANS = {
    "whole": Inference(short_side=None, window=None),
    "whole, scaled": Inference(short_side=45, window=None),
    "windows": Inference(short_side=None, window=32, stride=21),
    "windows, enlarged": Inference(short_side=120, window=48, stride=32),
    "scales and mirror images": Inference(
        short_side=50, window=32, stride=21, scales=(0.5, 1.0, 1.75), flip=True
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_labels_equal_the_plain_pass_in_any_tiles_and_batches(name: str) -> None:
    from dataclasses import replace

    model, image, plan = Looks(), photo(77, 101), PLANS[name]
    expected = plain(model, image, plan)
    assert len(np.unique(expected)) > 2
    for tile, batch in [(1000, 1), (1000, 3), (40, 2), (17, 4)]:
        found = Segmenter(model, MEAN, STD, replace(plan, tile=tile, batch=batch))(image)
        assert (found == expected).mean() > 0.9995, (tile, batch)


@pytest.mark.parametrize("wanted", ["float32", "bfloat16", "auto"])
def test_an_arithmetic_is_what_the_model_computes_in(wanted: Any, monkeypatch) -> None:
    monkeypatch.setattr(arithmetic, "_FEWEST", 1)
    monkeypatch.setattr(
        arithmetic,
        "quicker_arithmetic",
        lambda step, count: (step(count, torch.bfloat16), torch.bfloat16)[1],
    )
    seen = []
    model = nn.Conv2d(3, 6, 1)
    model.register_forward_hook(lambda _module, _inputs, scores: seen.append(scores.dtype))
    plan = Inference(short_side=64, window=48, stride=32, batch=2)
    segmenter = Segmenter(model, MEAN, STD, plan).in_arithmetic(wanted, images=5)
    seen.clear()
    assert segmenter(photo(64, 64)).shape == (64, 64)
    assert set(seen) == {torch.float32 if wanted == "float32" else torch.bfloat16}


def test_windows_are_seen_at_their_size_and_in_batches() -> None:
    model = Looks()
    plan = Inference(short_side=None, window=32, stride=21, batch=3, tile=40)
    Segmenter(model, MEAN, STD, plan)(photo(200, 300))
    assert max(shape[0] for shape in model.shapes) == 3
    assert {shape[2:] for shape in model.shapes} == {(32, 32)}


def test_memory_is_bounded_by_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """No score tensor is larger than a tile with the windows around it."""
    made: list[int] = []
    original = Segmenter._scores

    def watched(self: Segmenter, *arguments: object) -> Tensor:
        scores = original(self, *arguments)
        made.append(scores.numel())
        return scores

    monkeypatch.setattr(Segmenter, "_scores", watched)
    plan = Inference(short_side=None, window=32, stride=32, tile=64, batch=2)
    labels = Segmenter(Looks(), MEAN, STD, plan)(photo(400, 600))
    assert labels.shape == (400, 600)
    assert max(made) <= 6 * 66 * 66


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 256}, "stride = 341 leaves gaps between windows of 256"),
        ({"stride": 0}, "stride = 0"),
        ({"window": 0}, "window = 0"),
        ({"tile": -1}, "tile = -1"),
        ({"batch": 0}, "batch = 0"),
        ({"scales": ()}, "scales"),
        ({"scales": (1.0, -0.5)}, "scales"),
    ],
)
def test_plans_that_would_leave_pixels_out_are_refused(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Inference(**values)


def test_the_trial_of_arithmetic_shows_the_channels_of_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tried(step: arithmetic.Step, images: int) -> torch.dtype:
        step(images, torch.float32)
        return torch.float32

    monkeypatch.setattr(arithmetic, "quicker_arithmetic", tried)
    segmenter = Segmenter(nn.Conv2d(4, 6, 1), (0.5,) * 4, (0.2,) * 4, Inference(short_side=32))
    assert segmenter.in_arithmetic("auto", images=1000).dtype == torch.float32
