"""Rows of pictures about images, as one PNG or one HTML page."""

from __future__ import annotations

import html
import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tokenlabel.errors import InputError
from tokenlabel.files import write_atomically
from tokenlabel.labels import LabelMap
from tokenlabel.pictures.colors import Colors, class_colors, visible_classes
from tokenlabel.pictures.overlay import draw_legend, legend_columns, literal, shortened
from tokenlabel.pictures.page import figure_png, image_tag, page

__all__ = ["Panel", "Row", "write_pictures"]

# inches; every panel is as wide, so that the columns of all rows line up
_CELL, _GAP, _LINE = 3.0, 0.12, 0.19
_TITLE_LETTERS = 32  # that fit above a cell
_DPI = 110


@dataclass(frozen=True)
class Panel:
    """One picture; `draw` gets its axes and the colors [C, 3] of its row's classes.

    `scale` says what the colors of a heat map mean; it gets a color bar from 0 to 1.
    """

    title: str
    draw: Callable[[Any, NDArray[np.float64]], None]
    scale: str | None = None


@dataclass(frozen=True)
class Row:
    """All pictures of one image; the legend is of `label_maps`, which share `class_names`."""

    name: str
    image: NDArray[np.uint8]  # [H, W, 3]
    panels: Sequence[Panel]
    label_maps: Sequence[LabelMap]
    class_names: Sequence[str]
    answer: str | None = None  # the student's, in words


def write_pictures(file: Path, rows: Sequence[Row]) -> None:
    """Write `file`: a .png of all rows below each other, or a self-contained .html page."""
    suffix = file.suffix.lower()
    if suffix not in (".png", ".html"):
        raise InputError(f"{file}: pictures are written as .png or .html")
    file.parent.mkdir(parents=True, exist_ok=True)
    figures = [_figure(row) for row in rows]
    if suffix == ".html":
        parts = [
            f"<h2>{html.escape(row.name)}</h2>{image_tag(figure_png(figure, _DPI), row.name)}"
            for row, figure in zip(rows, figures, strict=True)
        ]
        content = page("Label maps", *parts).encode()
    else:
        content = _stacked(figures)
    write_atomically(file, content)


def _figure(row: Row) -> Figure:
    """A row: headings, one cell a picture, the legend."""
    titles = [_wrapped(text) for text in (row.name, *(panel.title for panel in row.panels))]
    if row.answer is not None:
        titles[0] += "\n" + _wrapped(row.answer)
    head = _LINE * max(title.count("\n") + 1 for title in titles) + 0.12
    shown = visible_classes(row.label_maps)
    scale = next((panel.scale for panel in row.panels if panel.scale is not None), None)
    width = len(titles) * (_CELL + _GAP) + _GAP
    foot = _LINE * 1.6 * _legend_rows(width, shown, row.class_names) + (0.42 if scale else 0.1)
    tall = _CELL * min(1.0, row.image.shape[0] / row.image.shape[1])
    figure = Figure(figsize=(width, head + tall + foot))
    height = figure.get_figheight()
    places = [
        ((_GAP + i * (_CELL + _GAP)) / width, foot / height, _CELL / width, tall / height)
        for i in range(len(titles))
    ]
    first, *others = [figure.add_axes(place) for place in places]
    first.imshow(row.image)
    first.set(xticks=[], yticks=[])
    colors = _colors(row)
    for axes, content in zip(others, row.panels, strict=True):
        content.draw(axes, colors)
    for axes, place, text in zip((first, *others), places, titles, strict=True):
        axes.set_anchor("N")
        left, top = place[0] + place[2] / 2, (foot + tall + 0.07) / height
        figure.text(left, top, literal(text), ha="center", va="bottom", fontsize=11)
    if shown:
        draw_legend(figure, row.class_names, shown, colors)
    if scale is not None:
        _color_bar(figure, scale, foot)
    return figure


def _colors(row: Row) -> Colors:
    if not row.label_maps:
        return np.zeros((0, 3))
    return class_colors(row.label_maps[0].num_classes, row.class_names)


def _wrapped(title: str) -> str:
    return textwrap.fill(title, _TITLE_LETTERS, max_lines=3, placeholder="…")


def _legend_rows(width: float, shown: Sequence[int], names: Sequence[str]) -> int:
    """Lines that `draw_legend` needs."""
    if not shown:
        return 0
    columns = legend_columns([shortened(names[c]) for c in shown], width)
    return -(-len(shown) // columns)


def _color_bar(figure: Figure, text: str, foot: float) -> None:
    """What the colors of the heat maps mean, under the last cell."""
    width, height = figure.get_size_inches()
    place = ((width - _GAP - 1.8) / width, (foot - 0.14) / height, 1.4 / width, 0.09 / height)
    axes = figure.add_axes(place)
    axes.imshow(np.linspace(0, 1, 64)[None], cmap="inferno", aspect="auto")
    axes.set(yticks=[])
    axes.set_xticks([0, 63], ["0", "1"], fontsize=8)
    axes.tick_params(length=0, pad=1)
    axes.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9)


def _stacked(figures: Sequence[Figure]) -> bytes:
    from PIL import Image

    pictures = [Image.open(io.BytesIO(figure_png(f, _DPI))).convert("RGB") for f in figures]
    width, height = max(p.width for p in pictures), sum(p.height for p in pictures)
    whole = Image.new("RGB", (width, height), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    buffer = io.BytesIO()
    whole.save(buffer, format="PNG")
    return buffer.getvalue()
