"""Label maps and stores for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStoreWriter

MakeMap = Callable[..., LabelMap]


def make_map(
    seed: int = 0,
    *,
    k: int = 3,
    grid: tuple[int, int] = (4, 5),
    num_classes: int = 20,
    extent: Box = Box(),
    scale: float = 4.0,
) -> LabelMap:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_classes, *grid, generator=generator) * scale
    return LabelMap.from_logits(logits, k, extent)


@pytest.fixture(name="make_map")
def make_map_fixture() -> MakeMap:
    return make_map


@pytest.fixture
def write_store(tmp_path: Path) -> Callable[..., Path]:
    """Writes a store of `count` maps with keys `cat/0000.jpg`, ... and returns its folder."""

    def write(
        name: str = "store", *, count: int = 10, shard_size: int = 4, **kwargs: object
    ) -> Path:
        folder = tmp_path / name
        with LabelStoreWriter(folder, num_classes=20, shard_size=shard_size, **kwargs) as writer:  # type: ignore[arg-type]
            for number in range(count):
                writer.add(f"cat/{number:04d}.jpg", make_map(number))
        return folder

    return write
