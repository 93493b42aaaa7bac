"""Predictions as files: label PNGs in the annotations' own values, and colors over the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenlabel.files import replacing
from tokenlabel.geometry.render import Pixels

__all__ = ["draw_class_table", "overlay", "save_legend", "save_mask"]


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


def draw_class_table(
    names: Sequence[str], iou: Sequence[float], accuracy: Sequence[float], title: str, file: Path
) -> None:
    """IoU and accuracy of each class, fractions in [0, 1], as bars; the best class on top."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    order = sorted(range(len(names)), key=lambda place: iou[place])
    figure = Figure(figsize=(7, 1 + 0.25 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    places = range(len(order))
    axes.barh(places, [accuracy[place] for place in order], color="0.85", label="accuracy")
    axes.barh(places, [iou[place] for place in order], height=0.5, color="tab:blue", label="IoU")
    axes.set_yticks(list(places), [names[place] for place in order], fontsize=8)
    axes.set(xlim=(0, 1), ylim=(-0.7, len(order) - 0.3), xlabel="share of pixels")
    axes.set_title(title, fontsize=10)
    axes.legend(loc="lower right", fontsize=8)
    with replacing(file) as aside:
        figure.savefig(aside, dpi=120, format="png")


def _save(picture: Image.Image, file: Path) -> None:
    """Written aside first, so that a file which is there is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as aside:
        picture.save(aside, format="PNG")
