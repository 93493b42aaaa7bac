"""Small pictures in folders, and annotators that need no weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel.annotators.protocol import Pixels
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap


class ColourAnnotator:
    """Scores classes by what colour each of 2 x 2 cells has: enough to tell images apart."""

    num_classes = 3
    class_names = ("cat", "dog", "owl")
    notes = ()
    description = {"kind": "colours"}  # noqa: RUF012

    def __init__(self) -> None:
        self.batches: list[int] = []

    def batch_size(self) -> int:
        return 4

    def prepare(self, key: str, pixels: Pixels, orientation: int = 1) -> torch.Tensor:
        planes = torch.from_numpy(pixels).permute(2, 0, 1).float()
        return torch.nn.functional.adaptive_avg_pool2d(planes, (2, 2)) / 32

    def annotate(self, batch: Sequence[torch.Tensor]) -> list[LabelMap]:
        # a little of the batch shows in every label, as in a network whose sums depend on its shape
        self.batches.append(len(batch))
        return [LabelMap.from_logits(p * (1 + len(batch) / 10), 2, Box()) for p in batch]


def write_images(folder: Path, count: int = 22) -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        path = folder / ("cat", "dog", "owl")[number % 3] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


@pytest.fixture
def colours() -> Any:
    return ColourAnnotator()
