"""Rows of pictures about images, as one PNG or one HTML page."""

from __future__ import annotations

import base64
import html
import io
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
from tokenlabel.pictures.overlay import draw_legend, highlight_colors

__all__ = ["Panel", "Row", "write_pictures"]

_HEIGHT = 3.0  # inches of a row of pictures


@dataclass(frozen=True)
class Panel:
    """One picture; `draw` gets its axes and the colours [C, 3] of its row's classes."""

    title: str
    draw: Callable[[Any, NDArray[np.float64]], None]


@dataclass(frozen=True)
class Row:
    """All pictures of one image; the legend is of `label_maps`, which share `class_names`."""

    name: str
    image: NDArray[np.uint8]  # [H, W, 3]
    panels: Sequence[Panel]
    label_maps: Sequence[LabelMap]
    class_names: Sequence[str]


def write_pictures(file: Path, rows: Sequence[Row]) -> None:
    """Write `file`: a .png of all rows below each other, or a self-contained .html page."""
    suffix = file.suffix.lower()
    if suffix not in (".png", ".html"):
        raise InputError(f"{file}: pictures are written as .png or .html")
    file.parent.mkdir(parents=True, exist_ok=True)
    figures = [_figure(row) for row in rows]
    if suffix == ".html":
        parts = "".join(
            f"<figure><figcaption>{html.escape(row.name)}</figcaption>{_embedded(figure, row.name)}"
            "</figure>"
            for row, figure in zip(rows, figures, strict=True)
        )
        content = _PAGE.format(parts=parts).encode()
    else:
        content = _stacked(figures)
    write_atomically(file, content)


def _figure(row: Row) -> Figure:
    height, width = row.image.shape[:2]
    panel = _HEIGHT * min(max(width / height, 0.4), 3.0)
    count = len(row.panels) + 1
    figure = Figure(figsize=(panel * count, _HEIGHT + 0.7), layout="constrained")
    first, *others = figure.subplots(1, count, squeeze=False)[0]
    first.imshow(row.image)
    first.set(xticks=[], yticks=[], title=row.name)
    if row.label_maps:
        colors, shown = highlight_colors(row.label_maps)
        draw_legend(figure, row.class_names, shown, colors)
    else:
        colors = np.zeros((0, 3))
    for axes, content in zip(others, row.panels, strict=True):
        content.draw(axes, colors)
        axes.set_title(content.title)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _embedded(figure: Figure, name: str) -> str:
    data = base64.b64encode(_png(figure)).decode()
    return f'<img alt="{html.escape(name, quote=True)}" src="data:image/png;base64,{data}">'


def _stacked(figures: Sequence[Figure]) -> bytes:
    from PIL import Image

    pictures = [Image.open(io.BytesIO(_png(figure))).convert("RGB") for figure in figures]
    width, height = max(p.width for p in pictures), sum(p.height for p in pictures)
    whole = Image.new("RGB", (width, height), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    buffer = io.BytesIO()
    whole.save(buffer, format="PNG")
    return buffer.getvalue()


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>tokenlabel show</title>
<style>body{{font:15px system-ui,sans-serif;margin:2rem;color:#222}}figure{{margin:0 0 2rem}}
figcaption{{font-weight:600;margin-bottom:.3rem}}img{{max-width:100%}}</style>
<h1>tokenlabel show</h1>{parts}</html>
"""
