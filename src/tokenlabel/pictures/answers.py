"""What a classifier answers on some images, beside what they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from tokenlabel.data.decode import decode_image
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.source import ImageSource, classes_of
from tokenlabel.pictures.colors import class_colors, visible_cells
from tokenlabel.pictures.overlay import shortened
from tokenlabel.pictures.sheet import (
    LINE,
    MARGIN,
    caption,
    cell_of,
    cells_over,
    legend,
    picture_of,
    row,
    stacked,
)

__all__ = ["Answered", "answer_sheet", "spread"]

_COUNT, _COLUMNS = 12, 6  # images, and columns of pictures
_RIGHT, _WRONG = "#1a7f37", "#c62828"


class Answered(NamedTuple):
    """Of a batch: class probabilities [B, C], and token scores [B, h, w, C] where these name classes."""

    probabilities: Tensor
    tokens: Tensor | None


@torch.inference_mode()
def answer_sheet(
    answer: Callable[[Tensor], Answered],
    preprocessing: Preprocessing,
    images: ImageSource,
    titles: Sequence[str],
) -> Image.Image:
    """Some images as the model sees them, with its answers in green and red, and their classes.

    `answer` takes uint8 images [B, 3, h, w]; they are spread evenly over `images`, whose classes are
    called `titles`. Beside each image stand the model's token predictions, where it has any.
    """
    chosen = spread(len(images), _COUNT)
    pixels = [
        preprocessing.pixels(decode_image(images.read(i), images.keys[i], images.rules))
        for i in chosen
    ]
    answers = [answer(one[None]) for one in pixels]
    colors = class_colors(len(titles), titles)
    cell = cell_of(*preprocessing.image_size)
    each = 1 if answers[0].tokens is None else 2  # pictures an image
    rows, shown = [], []
    for first in range(0, len(chosen), _COLUMNS // each):
        group = range(first, min(first + _COLUMNS // each, len(chosen)))
        panels = []
        for place in group:
            panels.append(picture_of(pixels[place]))
            tokens = answers[place].tokens
            if tokens is not None:
                share, classes = tokens[0].float().softmax(-1).max(-1)
                shown.append((classes, share))
                gray = panels[-1].convert("L").convert("RGB")
                panels.append(cells_over(gray, classes, share, colors))
        strip = row(panels, cell, head=2 * LINE, columns=_COLUMNS)
        width = each * (cell[0] + MARGIN)
        for column, place in enumerate(group):
            left = MARGIN + column * width
            truth = classes_of(images, chosen[place])
            confidence, number = answers[place].probabilities[0].float().max(0)
            said = f"{shortened(titles[int(number)])}, {100 * float(confidence):.0f} %"
            name = ", ".join(shortened(titles[label]) for label in truth) or "unlabeled"
            color = _RIGHT if int(number) in truth else _WRONG
            caption(strip, f"answer: {said}", (left, 3), width - MARGIN, fill=color)
            caption(strip, f"class: {name}", (left, 3 + LINE - 3), width - MARGIN)
        rows.append(strip)
    if shown:
        rows.append(legend(visible_cells(shown, len(titles)), titles, colors, rows[0].width))
    return stacked(rows)


def spread(total: int, count: int) -> list[int]:
    """At most `count` of `total` places, evenly spread from the first to the last."""
    count = min(count, total)
    return [round(i * (total - 1) / max(count - 1, 1)) for i in range(count)]
