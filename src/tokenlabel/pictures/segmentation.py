"""Predictions as files: label PNGs in the annotations' own values, and colors over the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenlabel.files import replacing
from tokenlabel.geometry.render import Pixels

__all__ = ["overlay", "save_legend", "save_mask"]


def save_mask(values: NDArray[np.uint8] | NDArray[np.uint16], file: Path) -> None:
    """Write mask values [H, W] as a PNG."""
    _save(Image.fromarray(values), file)


def overlay(
    image: Pixels,
    labels: NDArray[np.int16],
    colors: NDArray[np.float64],
    file: Path,
    strength: float = 0.5,
) -> None:
    """Write the image [H, W, 3] under its labels' colors [C, 3], in [0, 1], as a PNG."""
    painted = (np.concatenate([colors, np.zeros((1, 3))]) * 255 * strength).astype(np.float32)
    mixed = image * np.float32(1 - strength) + painted[labels]
    _save(Image.fromarray(mixed.round().astype(np.uint8)), file)


def save_legend(names: Sequence[str], colors: NDArray[np.float64], file: Path) -> None:
    """Write the colors [C, 3] of the overlays with the names of their classes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    columns = 1 + len(names) // 25
    figure = Figure(figsize=(2.2 * columns, 0.4 + 0.22 * min(len(names), 25)))
    FigureCanvasAgg(figure)
    handles = [Patch(color=color, label=name) for name, color in zip(names, colors, strict=True)]
    figure.legend(handles=handles, loc="center", ncols=columns, frameon=False, fontsize=9)
    with replacing(file) as aside:
        figure.savefig(aside, dpi=120, format="png")


def _save(picture: Image.Image, file: Path) -> None:
    """Written aside first, so that a file which is there is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as aside:
        picture.save(aside, format="PNG")
