"""Sheets: rows of small pictures of one size, with headings, captions and a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from tokenlabel.pictures.colors import Colors
from tokenlabel.pictures.overlay import shortened

__all__ = ["LINE", "MARGIN", "caption", "cell_of", "cells_over", "fitted", "headings", "legend",
           "picture_of", "row", "stacked"]  # fmt: skip

MARGIN, LINE = 8, 20  # pixels between pictures, and of a line of text
_LEAST = 160  # pixels of a cell's longer side: smaller images are enlarged
_STRENGTH = 0.65  # of a class's color where it is certain
_LISTED = 34  # pixels of a legend's entry besides its text

Size = tuple[int, int]  # (width, height) in pixels, as Pillow has it


def cell_of(height: int, width: int) -> Size:
    """The cell for pictures of that size: enlarged by a whole number up to 160 pixels or more."""
    factor = -(-_LEAST // max(height, width))
    return width * factor, height * factor


def picture_of(pixels: Tensor) -> Image.Image:
    """Levels [C, H, W] from 0 to 255 as a picture: the first three channels, or one as gray."""
    shown = pixels[:3] if len(pixels) > 2 else pixels[:1].expand(3, -1, -1)
    shown = shown.round().byte() if shown.is_floating_point() else shown
    return Image.fromarray(shown.permute(1, 2, 0).contiguous().numpy())


def cells_over(
    picture: Image.Image, classes: Tensor, share: Tensor, palette: Colors
) -> Image.Image:
    """Cells [h, w] in their classes' colors over a picture, as strong as their share in [0, 1]."""
    colors = (palette[classes.numpy()] * 255).astype(np.uint8)
    strength = (share.clamp(0, 1) * _STRENGTH * 255).byte().numpy()
    over, mask = (
        Image.fromarray(cells).resize(picture.size, Image.Resampling.NEAREST)
        for cells in (colors, strength)
    )
    return Image.composite(over, picture, mask)


def fitted(picture: Image.Image, cell: Size) -> Image.Image:
    """As large as fits into the cell; enlarged by a whole number, so that pixels stay squares."""
    scale = min(cell[0] / picture.width, cell[1] / picture.height)
    if scale >= 1:
        return ImageOps.scale(picture, int(scale), Image.Resampling.NEAREST)
    return ImageOps.contain(picture, cell, Image.Resampling.BOX)


def headings(texts: Sequence[str], cell: Size) -> Image.Image:
    """One heading above each column."""
    strip = Image.new("RGB", (_width(len(texts), cell), LINE + MARGIN), "white")
    for i, text in enumerate(texts):
        caption(strip, text, (_left(i, cell), 5), cell[0], size=14)
    return strip


def row(
    panels: Sequence[Image.Image], cell: Size, head: int = LINE, columns: int | None = None
) -> Image.Image:
    """Pictures side by side, each fitted into a cell, with `head` pixels for what is written above.

    `columns` is how many fit, if the row is not full.
    """
    strip = Image.new(
        "RGB", (_width(columns or len(panels), cell), head + cell[1] + MARGIN), "white"
    )
    for i, panel in enumerate(panels):
        strip.paste(fitted(panel, cell), (_left(i, cell), head))
    return strip


def caption(
    picture: Image.Image,
    text: str,
    place: tuple[int, int],
    width: int,
    fill: str = "black",
    size: int = 12,
) -> None:
    """Write a line at (left, top); of a text that is wider than `width` the end is kept."""
    font = _font(size)
    kept = text
    while len(kept) > 1 and font.getlength(kept) > width:
        kept = "…" + kept[2:]
    ImageDraw.Draw(picture).text(place, kept, fill=fill, font=font)


def legend(classes: Sequence[int], names: Sequence[str], colors: Colors, width: int) -> Image.Image:
    """The colors of some classes with their names, in as many lines as it takes."""
    lines: list[list[tuple[int, int, str]]] = [[]]
    left = MARGIN
    for number in classes:
        name = shortened(names[number])
        needed = int(_font().getlength(name)) + _LISTED
        if left + needed > width and lines[-1]:
            lines.append([])
            left = MARGIN
        lines[-1].append((left, number, name))
        left += needed
    strip = Image.new("RGB", (width, LINE * len(lines) + MARGIN), "white")
    draw = ImageDraw.Draw(strip)
    for place, line in enumerate(lines):
        top = place * LINE + 4
        for left, number, name in line:
            fill = tuple((colors[number] * 255).astype(int).tolist())
            draw.rectangle((left, top, left + 12, top + 12), fill=fill)
            draw.text((left + 18, top - 1), name, fill="black", font=_font())
    return strip


def stacked(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows below each other, on white."""
    size = max(part.width for part in rows), sum(part.height for part in rows)
    sheet = Image.new("RGB", size, "white")
    top = 0
    for part in rows:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _left(column: int, cell: Size) -> int:
    return MARGIN + column * (cell[0] + MARGIN)


def _width(columns: int, cell: Size) -> int:
    return columns * (cell[0] + MARGIN) + MARGIN


def _font(size: int = 12) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
