"""A contact sheet of training samples: each image and its labels, before and after its view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from tokenlabel.data.batch import Batch
from tokenlabel.data.order import Request
from tokenlabel.data.samples import Samples
from tokenlabel.geometry import View
from tokenlabel.labels import LabelMap
from tokenlabel.pictures.colors import Colors, class_colors, visible_cells
from tokenlabel.pictures.overlay import shortened
from tokenlabel.pictures.sheet import (
    MARGIN,
    Size,
    caption,
    cell_of,
    cells_over,
    fitted,
    headings,
    legend,
    picture_of,
    row,
    stacked,
)
from tokenlabel.targets import TokenTarget

__all__ = ["contact_sheet"]

_OUTLINE = (255, 220, 0)
_HEADINGS = ("image and crop", "labels", "the student sees", "token targets")


def contact_sheet(
    samples: Samples, requests: Sequence[Request], class_names: Sequence[str]
) -> Image.Image:
    """The samples of some requests, one a row, as training makes them.

    From the left: the image with the outline of its view; the same under its label map; what the
    student sees; the same under its token targets. The stronger a class's color the surer it is;
    tokens without a target keep the picture's own colors. Images below 160 pixels are enlarged by a
    whole number. Samples without targets have the first and the third column.
    """
    batch = samples.make(list(requests))
    cell = cell_of(*samples.size)
    names, colors = _classes(batch, class_names)
    shown: list[tuple[Tensor, Tensor]] = []  # class and share of the cells that are drawn
    rows = [headings(_HEADINGS if batch.target is not None else _HEADINGS[::2], cell)]
    for i, request in enumerate(requests):
        drawn, image = samples.draw(request)
        panels = [picture_of(torch.from_numpy(image).permute(2, 0, 1))]
        if samples.targets is not None:
            label_map = samples.targets.labels[batch.keys[i]]
            shown.append(_best_of_map(label_map))
            panels.append(_under_map(panels[0], label_map, *shown[-1], colors))
        panels = [_outlined(panel, drawn.view, cell) for panel in panels]
        panels.append(picture_of(batch.images[i]))
        if batch.target is not None:
            shown.append(_best_of_target(batch.target, i))
            panels.append(cells_over(panels[-1], *shown[-1], colors))
        labels = [label for label in batch.accepted[i].tolist() if label >= 0]
        name = ", ".join(shortened(class_names[label]) for label in labels) or "unlabeled"
        rows.append(row(panels, cell))
        caption(rows[-1], f"{batch.keys[i]}   {name}", (MARGIN, 3), rows[-1].width - 2 * MARGIN)
    if shown:
        rows.append(legend(visible_cells(shown, len(names)), names, colors, rows[0].width))
    return stacked(rows)


def _classes(batch: Batch, class_names: Sequence[str]) -> tuple[Sequence[str], Colors]:
    """Names and colors of the classes of the labels: the images' own where there are as many."""
    count = len(class_names) if batch.target is None else batch.target.num_classes
    names = class_names if count == len(class_names) else tuple(map(str, range(count)))
    return names, class_colors(count, names)


def _outlined(picture: Image.Image, view: View, cell: Size) -> Image.Image:
    """A picture in its cell, with the outline of a view of it: enlarged first, so that it is thin."""
    panel = fitted(picture, cell).copy()
    corners = view.source_points(np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], float))
    outline = [tuple(point) for point in (corners * panel.size).tolist()]
    ImageDraw.Draw(panel).line(outline, _OUTLINE, width=max(2, panel.width // 120))
    return panel


def _under_map(
    picture: Image.Image, label_map: LabelMap, classes: Tensor, share: Tensor, colors: Colors
) -> Image.Image:
    """A picture under the cells of its label map, which may cover a part of it."""
    box, (width, height) = label_map.extent, picture.size
    corners = [box.x0 * width, box.y0 * height, box.x1 * width, box.y1 * height]
    left, top, right, bottom = (round(corner) for corner in corners)
    covered = picture.copy()
    covered.paste(
        cells_over(picture.crop((left, top, right, bottom)), classes, share, colors), (left, top)
    )
    return covered


def _best_of_map(label_map: LabelMap) -> tuple[Tensor, Tensor]:
    """Class and probability of each cell's most probable class, [h, w]."""
    share, slot = label_map.probabilities().max(0)
    return label_map.classes.gather(0, slot[None])[0], share


def _best_of_target(target: TokenTarget, i: int) -> tuple[Tensor, Tensor]:
    """Class and share [h, w] of each token's most probable class; share 0 where it has no target."""
    share, best = target.take(torch.tensor([i])).dense()[0, 1:].max(1)
    return best.view(target.grid), (share * target.mask[i, 1:]).view(target.grid)
