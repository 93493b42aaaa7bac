"""A small set of images and labels on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel.data.source import ImageSource, open_source
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap


@dataclass
class MemoryLabels:
    """Label maps kept in memory, with what a store's manifest says."""

    maps: dict[str, LabelMap]
    manifest: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(num_classes=4, class_names=None, left_out=())
    )

    def __len__(self) -> int:
        return len(self.maps)

    def __contains__(self, key: str) -> bool:
        return key in self.maps

    def __getitem__(self, key: str) -> LabelMap:
        return self.maps[key]


@pytest.fixture
def source(tmp_path: Path) -> ImageSource:
    """26 smooth images of different shapes in 4 classes."""
    rng = np.random.default_rng(0)
    for i in range(26):
        size = (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
        coarse = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
        path = tmp_path / "images" / f"class{i % 4}" / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, quality=95)
    return open_source(str(tmp_path / "images"))


@pytest.fixture
def make_labels() -> Callable[[ImageSource], MemoryLabels]:
    def make(source: ImageSource) -> MemoryLabels:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(len(source), 4, 6, 5, generator=generator) * 3
        return MemoryLabels(
            {key: LabelMap.from_logits(logits[i], 3, Box()) for i, key in enumerate(source.keys)}
        )

    return make
