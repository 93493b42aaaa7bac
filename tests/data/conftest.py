"""A small set of images, and labels for it, on disk."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel.data.open import open_source
from tokenlabel.data.source import ImageSource
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStore, LabelStoreWriter

MakeLabels = Callable[..., LabelStore]


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
def make_labels(tmp_path: Path, source: ImageSource) -> MakeLabels:
    """Writes a store of random labels for `source`, with such defects as are asked for."""

    def make(
        classes: int = 4,
        class_names: tuple[str, ...] | None = None,
        missing: Collection[str] = (),
        left_out: Collection[str] = (),
    ) -> LabelStore:
        folder = tmp_path / f"labels{len(list(tmp_path.iterdir()))}"
        generator = torch.Generator().manual_seed(0)
        with LabelStoreWriter(folder, num_classes=classes, class_names=class_names) as writer:
            for key in source.keys:
                logits = torch.randn(classes, 6, 5, generator=generator) * 3
                if key in left_out:
                    writer.leave_out(key, "unreadable")
                elif key not in missing:
                    writer.add(key, LabelMap.from_logits(logits, 3, Box()))
        return LabelStore(folder)

    return make
