"""A contact sheet of training samples: each image and its labels, before and after its view."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from tokenlabel.data.batch import Batch
from tokenlabel.data.loader import Loader, Samples
from tokenlabel.geometry import View
from tokenlabel.geometry.render import Pixels
from tokenlabel.labels import LabelMap
from tokenlabel.pictures.overlay import class_colors
from tokenlabel.targets import TokenTarget

__all__ = ["contact_sheet"]

_MARGIN, _CAPTION = 6, 14
_STRENGTH = 0.65  # of the colour where the annotator is sure
_OUTLINE = (255, 220, 0)


def contact_sheet(
    loader: Loader[Batch], class_names: tuple[str, ...], epoch: int = 0
) -> Image.Image:
    """The samples of the first batch of an epoch, one a row.

    From the left: the image with the outline of its view; the same under its label map; what the
    student sees; the same under its token targets. A class has one colour throughout, the stronger
    the surer; tokens without a target keep the picture's own colours.
    """
    samples = loader.samples
    assert isinstance(samples, Samples)  # what `train_loader` makes
    batch = next(loader.epoch(epoch))
    loader.order.epoch, loader.order.start = epoch, 0
    rows = []
    for i, request in enumerate(next(iter(loader.order))):
        drawn, image = samples.draw(request)
        panels = _before(image, drawn.view, _label_map(samples, batch.keys[i])) + _after(batch, i)
        name = class_names[int(batch.labels[i])]
        rows.append(_row(panels, f"{batch.keys[i]}   {name}", samples.size))
    width, height = rows[0].size
    sheet = Image.new("RGB", (width, height * len(rows)), "white")
    for i, row in enumerate(rows):
        sheet.paste(row, (0, i * height))
    return sheet


def _label_map(samples: Samples, key: str) -> LabelMap | None:
    targets = samples.targets
    return targets.labels[key] if targets else None


def _before(image: Pixels, view: View, label_map: LabelMap | None) -> list[Image.Image]:
    panels = [Image.fromarray(image)]
    if label_map is not None:
        probability = label_map.probabilities()
        share, slot = probability.max(0)
        best = label_map.classes.gather(0, slot[None])[0]
        box, (height, width) = label_map.extent, image.shape[:2]
        corners = [box.x0 * width, box.y0 * height, box.x1 * width, box.y1 * height]
        left, top, right, bottom = (round(corner) for corner in corners)
        region = Image.fromarray(image).crop((left, top, right, bottom))
        overlaid = panels[0].copy()
        overlaid.paste(_overlay(region, best, share, label_map.num_classes), (left, top))
        panels.append(overlaid)
    for panel in panels:
        corners_xy = view.source_points(np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], float))
        outline = [tuple(point) for point in (corners_xy * panel.size).tolist()]
        ImageDraw.Draw(panel).line(outline, _OUTLINE, width=max(2, panel.width // 120))
    return panels


def _after(batch: Batch, i: int) -> list[Image.Image]:
    picture = Image.fromarray(batch.images[i].permute(1, 2, 0).numpy())
    if batch.target is None:
        return [picture]
    share, best = _best_classes(batch.target, i)
    return [picture, _overlay(picture, best, share, batch.target.num_classes)]


def _best_classes(target: TokenTarget, i: int) -> tuple[Tensor, Tensor]:
    """Share and id [h, w] of each token's most probable class; share 0 where there is no target."""
    share, best = target.take(torch.tensor([i])).dense()[0, 1:].max(1)
    return (share * target.mask[i, 1:]).view(target.grid), best.view(target.grid)


def _overlay(picture: Image.Image, classes: Tensor, share: Tensor, num_classes: int) -> Image.Image:
    """Cells [h, w] of class colours over a picture, as strong as their share."""
    colours = (class_colors(num_classes)[classes.numpy()] * 255).astype(np.uint8)
    strength = (share.clamp(0, 1) * _STRENGTH * 255).byte().numpy()
    over, mask = (
        Image.fromarray(cells).resize(picture.size, Image.Resampling.NEAREST)
        for cells in (colours, strength)
    )
    return Image.composite(over, picture, mask)


def _row(panels: list[Image.Image], caption: str, size: tuple[int, int]) -> Image.Image:
    height, width = size
    row = Image.new(
        "RGB",
        (len(panels) * (width + _MARGIN) + _MARGIN, height + _MARGIN + _CAPTION),
        "white",
    )
    for i, panel in enumerate(panels):
        panel.thumbnail((width, height))
        row.paste(panel, (_MARGIN + i * (width + _MARGIN), _CAPTION))
    ImageDraw.Draw(row).text((_MARGIN, 1), caption, fill="black")
    return row
