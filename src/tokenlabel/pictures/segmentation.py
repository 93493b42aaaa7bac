"""Predictions as files: label PNGs in the annotations' own values, and colors over the image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tokenlabel.files import replacing, write_atomically
from tokenlabel.geometry.render import Pixels
from tokenlabel.pictures.colors import class_colors
from tokenlabel.pictures.overlay import literal
from tokenlabel.pictures.page import figure_png
from tokenlabel.pictures.sheet import (
    MARGIN,
    caption,
    cell_of,
    headings,
    legend,
    picture_of,
    row,
    stacked,
)

__all__ = ["Masked", "draw_class_table", "mask_sheet", "overlay", "save_legend", "save_mask"]

_LISTED, _LEAST = 24, 0.002  # classes of a legend at most; the share of a picture that can be seen
_LARGEST = 320  # pixels of a sheet's pictures
_STRENGTH = 0.5  # of the colors over an image


@dataclass(frozen=True)
class Masked:
    """An image [H, W, C] with masks of it [H, W], class numbers with -1 for none, by heading."""

    name: str
    image: Pixels
    masks: Mapping[str, NDArray[np.int16]]


def save_mask(values: NDArray[np.uint8] | NDArray[np.uint16], file: Path) -> None:
    """Write mask values [H, W] as a PNG."""
    _save(Image.fromarray(values), file)


def overlay(
    image: Pixels, labels: NDArray[np.int16], colors: NDArray[np.float64], file: Path
) -> None:
    """Write the image [H, W, C] under its labels' colors [C, 3], in [0, 1], as a PNG."""
    _save(_overlaid(image, labels, colors), file)


def mask_sheet(pictures: Sequence[Masked], names: Sequence[str]) -> Image.Image:
    """Images beside their masks, one a row, with the classes that can be seen in them."""
    colors = class_colors(len(names), names)
    first = pictures[0]
    cell = cell_of(*_within(first.image.shape[:2]))
    rows = [headings(["image", *first.masks], cell)]
    seen = np.zeros(len(names))
    for picture in pictures:
        panels = [_picture(picture.image)]
        for labels in picture.masks.values():
            panels.append(_overlaid(picture.image, labels, colors))
            counts = np.bincount(labels[labels >= 0], minlength=len(names))
            seen = np.maximum(seen, counts / labels.size)
        rows.append(row(panels, cell))
        caption(rows[-1], picture.name, (MARGIN, 3), rows[-1].width - 2 * MARGIN)
    order = np.argsort(-seen, kind="stable")[:_LISTED]
    shown = [int(number) for number in order if seen[number] >= _LEAST]
    return stacked([*rows, legend(shown, names, colors, rows[0].width)])


def _within(size: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of a cell for images of that size: at most 320 pixels high and wide."""
    scale = min(1.0, _LARGEST / max(size))
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _picture(image: Pixels) -> Image.Image:
    return picture_of(torch.from_numpy(image).permute(2, 0, 1))


def _overlaid(image: Pixels, labels: NDArray[np.int16], colors: NDArray[np.float64]) -> Image.Image:
    """An image under its labels' colors, darker where there is none."""
    painted = (np.concatenate([colors, np.zeros((1, 3))]) * 255 * _STRENGTH).astype(np.float32)
    mixed = np.asarray(_picture(image)) * np.float32(1 - _STRENGTH) + painted[labels]
    return Image.fromarray(mixed.round().astype(np.uint8))


def save_legend(names: Sequence[str], colors: NDArray[np.float64], file: Path) -> None:
    """Write the colors [C, 3] of the overlays with the names of their classes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    columns = 1 + len(names) // 25
    figure = Figure(figsize=(2.2 * columns, 0.4 + 0.22 * min(len(names), 25)))
    FigureCanvasAgg(figure)
    handles = [
        Patch(color=color, label=literal(name)) for name, color in zip(names, colors, strict=True)
    ]
    figure.legend(handles=handles, loc="center", ncols=columns, frameon=False, fontsize=9)
    write_atomically(file, figure_png(figure))


def draw_class_table(
    names: Sequence[str], iou: Sequence[float], accuracy: Sequence[float], title: str, file: Path
) -> None:
    """IoU and accuracy of each class, fractions in [0, 1], as bars; the best class on top.

    A class that never comes up, whose IoU is not a number, has no bar and is called absent.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    absent = [math.isnan(value) for value in iou]
    order = sorted(range(len(names)), key=lambda place: -1.0 if absent[place] else iou[place])
    labels = [literal(names[place]) + (" (absent)" if absent[place] else "") for place in order]
    figure = Figure(figsize=(7, 1 + 0.25 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    places = range(len(order))
    axes.barh(places, [accuracy[place] for place in order], color="0.85", label="accuracy")
    axes.barh(places, [iou[place] for place in order], height=0.5, color="tab:blue", label="IoU")
    axes.set_yticks(list(places), labels, fontsize=8)
    axes.set(xlim=(0, 1), ylim=(-0.7, len(order) - 0.3), xlabel="share of pixels")
    axes.set_title(literal(title), fontsize=10)
    axes.legend(loc="lower right", fontsize=8)
    write_atomically(file, figure_png(figure))


def _save(picture: Image.Image, file: Path) -> None:
    """Written aside first, so that a file which is there is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as aside:
        picture.save(aside, format="PNG")
