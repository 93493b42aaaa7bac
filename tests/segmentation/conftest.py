"""Tiny data sets of drawn scenes: every class is a rectangle of its own colour."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # for the tiny segmenter
from tiny_segmenter import train

COLORS = np.array([[220, 40, 40], [40, 200, 60], [50, 60, 210]], np.uint8)


def scene(seed: int, size: tuple[int, int] = (48, 64)) -> tuple[np.ndarray, np.ndarray]:
    """An image and its mask with values 1 to 3, and 0 in the top left corner."""
    rng = np.random.default_rng(seed)
    mask = np.ones(size, np.uint8)
    for value in (2, 3):
        top, left = (int(rng.integers(0, side // 2)) for side in size)
        mask[top : top + size[0] // 2, left : left + size[1] // 2] = value
    noise = rng.integers(-20, 20, (*size, 3))
    image = (COLORS[mask - 1].astype(int) + noise).clip(0, 255).astype(np.uint8)
    mask[:4, :4] = 0
    return image, mask


def write(root: Path, kind: str, count: int, seed: int) -> None:
    images, masks = root / "images" / kind, root / "annotations" / kind
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for index in range(count):
        image, mask = scene(seed + index)
        Image.fromarray(image).save(images / f"s{index}.png")
        Image.fromarray(mask).save(masks / f"s{index}.png")


@pytest.fixture(scope="session")
def make_scenes() -> Callable[[Path], None]:
    """Writes a data set in ADE20K's layout: 8 training and 3 validation scenes."""

    def make(root: Path) -> None:
        write(root, "training", 8, seed=0)
        write(root, "validation", 3, seed=100)
        (root / "classes.json").write_text(json.dumps(["wall", "grass", "pool"]))

    return make


@pytest.fixture
def scenes(tmp_path: Path, make_scenes: Callable[[Path], None]) -> Path:
    """A data set of the test's own."""
    root = tmp_path / "scenes"
    make_scenes(root)
    return root


@pytest.fixture
def replace_mask(scenes: Path) -> Callable[[Image.Image], Path]:
    """Puts another picture in the place of the first training mask."""

    def replace(picture: Image.Image) -> Path:
        file = scenes / "annotations" / "training" / "s0.png"
        picture.save(file)
        return file

    return replace


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, make_scenes: Callable[[Path], None]
) -> tuple[Path, Path]:
    """A data set and the run of a small network on it."""
    root = tmp_path_factory.mktemp("segment")
    make_scenes(root / "scenes")
    train(root / "scenes", root / "run", 45)
    return root / "scenes", root / "run"
