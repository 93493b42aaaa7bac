"""Predictions as files: label PNGs in the annotations' own values, and colours over the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenlabel.geometry.render import Pixels
from tokenlabel.segmentation.classes import ClassList, Labels

__all__ = ["overlay", "save_labels"]


def save_labels(labels: Labels, classes: ClassList, file: Path) -> None:
    """Write labels [H, W] as a PNG that reads as a mask of the same class list."""
    _save(Image.fromarray(classes.encode(labels)), file)


def overlay(
    image: Pixels,
    labels: Labels,
    colors: NDArray[np.float64],
    file: Path,
    strength: float = 0.5,
) -> None:
    """Write the image [H, W, 3] under its labels' colours [C, 3], in [0, 1], as a PNG."""
    painted = (np.concatenate([colors, np.zeros((1, 3))]) * 255 * strength).astype(np.float32)
    mixed = image * np.float32(1 - strength) + painted[labels]
    _save(Image.fromarray(mixed.round().astype(np.uint8)), file)


def _save(picture: Image.Image, file: Path) -> None:
    """Written aside first, so that a file which is there is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.writing")
    picture.save(aside, format="PNG")
    aside.rename(file)
