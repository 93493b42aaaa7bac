"""A contact sheet of training samples: each image and its labels, before and after its view."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from tokenlabel.data.batch import Batch
from tokenlabel.data.loader import Loader, Samples
from tokenlabel.geometry import View
from tokenlabel.geometry.render import Pixels
from tokenlabel.labels import LabelMap
from tokenlabel.pictures.colors import Colors, class_colors
from tokenlabel.pictures.overlay import shortened
from tokenlabel.targets import TokenTarget

__all__ = ["contact_sheet"]

_MARGIN, _CAPTION = 8, 20  # pixels
_LEAST = 160  # pixels of a cell's longer side: smaller images are enlarged
_STRENGTH = 0.65  # of the color where the annotator is sure
_OUTLINE = (255, 220, 0)
_HEADINGS = ("image and crop", "labels", "the student sees", "token targets")
_LEGEND = 12  # classes at most


def contact_sheet(
    loader: Loader[Batch], class_names: tuple[str, ...], epoch: int = 0
) -> Image.Image:
    """The samples of the first batch of an epoch, one a row.

    From the left: the image with the outline of its view; the same under its label map; what the
    student sees; the same under its token targets. The stronger a class's color the surer it is;
    tokens without a target keep the picture's own colors. Images below 160 pixels are enlarged by a
    whole number.
    """
    samples = loader.samples
    assert isinstance(samples, Samples)  # what `train_loader` makes
    batch = next(loader.epoch(epoch))
    loader.order.epoch, loader.order.start = epoch, 0
    factor = -(-_LEAST // max(samples.size))
    cell = (samples.size[1] * factor, samples.size[0] * factor)
    names, colors = _classes(batch, class_names)
    headings = _HEADINGS if batch.target is not None else _HEADINGS[::2]
    rows = [_strip([*headings], cell)]
    for i, request in enumerate(next(iter(loader.order))):
        drawn, image = samples.draw(request)
        label_map = _label_map(samples, batch.keys[i])
        panels = _before(image, drawn.view, label_map, colors, cell) + _after(batch, i, colors)
        label = int(batch.labels[i])
        name = shortened(class_names[label]) if label >= 0 else "unlabeled"
        rows.append(_row(panels, f"{batch.keys[i]}   {name}", cell))
    if batch.target is not None:
        rows.append(_legend(batch.target, names, colors, rows[0].width))
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _classes(batch: Batch, class_names: tuple[str, ...]) -> tuple[tuple[str, ...], Colors]:
    """Names and colors of the classes of the labels: the images' own where there are as many."""
    count = len(class_names) if batch.target is None else batch.target.num_classes
    names = class_names if count == len(class_names) else tuple(map(str, range(count)))
    return names, class_colors(count, names)


def _label_map(samples: Samples, key: str) -> LabelMap | None:
    targets = samples.targets
    return targets.labels[key] if targets else None


def _before(
    image: Pixels, view: View, label_map: LabelMap | None, colors: Colors, cell: tuple[int, int]
) -> list[Image.Image]:
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
        overlaid.paste(_overlay(region, best, share, colors), (left, top))
        panels.append(overlaid)
    panels = [_fitted(panel, cell) for panel in panels]  # first, so that outlines are thin
    for panel in panels:
        corners_xy = view.source_points(np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], float))
        outline = [tuple(point) for point in (corners_xy * panel.size).tolist()]
        ImageDraw.Draw(panel).line(outline, _OUTLINE, width=max(2, panel.width // 120))
    return panels


def _after(batch: Batch, i: int, colors: Colors) -> list[Image.Image]:
    picture = Image.fromarray(batch.images[i].permute(1, 2, 0).numpy())
    if batch.target is None:
        return [picture]
    share, best = _best_classes(batch.target, i)
    return [picture, _overlay(picture, best, share, colors)]


def _best_classes(target: TokenTarget, i: int) -> tuple[Tensor, Tensor]:
    """Share and id [h, w] of each token's most probable class; share 0 where there is no target."""
    share, best = target.take(torch.tensor([i])).dense()[0, 1:].max(1)
    return (share * target.mask[i, 1:]).view(target.grid), best.view(target.grid)


def _overlay(picture: Image.Image, classes: Tensor, share: Tensor, palette: Colors) -> Image.Image:
    """Cells [h, w] of class colors over a picture, as strong as their share."""
    colors = (palette[classes.numpy()] * 255).astype(np.uint8)
    strength = (share.clamp(0, 1) * _STRENGTH * 255).byte().numpy()
    over, mask = (
        Image.fromarray(cells).resize(picture.size, Image.Resampling.NEAREST)
        for cells in (colors, strength)
    )
    return Image.composite(over, picture, mask)


def _row(panels: list[Image.Image], caption: str, cell: tuple[int, int]) -> Image.Image:
    """The pictures of one sample under its name, each fitted into a cell of (width, height)."""
    width, height = cell
    size = (len(panels) * (width + _MARGIN) + _MARGIN, height + _MARGIN + _CAPTION)
    row = Image.new("RGB", size, "white")
    for i, panel in enumerate(panels):
        row.paste(_fitted(panel, cell), (_MARGIN + i * (width + _MARGIN), _CAPTION))
    ImageDraw.Draw(row).text((_MARGIN, 3), caption, fill="black", font=_font())
    return row


def _fitted(picture: Image.Image, cell: tuple[int, int]) -> Image.Image:
    """As large as fits into the cell; enlarged by a whole number, so that pixels stay squares."""
    scale = min(cell[0] / picture.width, cell[1] / picture.height)
    if scale >= 1:
        return ImageOps.scale(picture, int(scale), Image.Resampling.NEAREST)
    return ImageOps.contain(picture, cell, Image.Resampling.BOX)


def _strip(headings: list[str], cell: tuple[int, int]) -> Image.Image:
    width = cell[0] + _MARGIN
    strip = Image.new("RGB", (len(headings) * width + _MARGIN, _CAPTION + _MARGIN), "white")
    for i, heading in enumerate(headings):
        ImageDraw.Draw(strip).text((_MARGIN + i * width, 5), heading, fill="black", font=_font(14))
    return strip


def _legend(
    target: TokenTarget, class_names: tuple[str, ...], colors: Colors, width: int
) -> Image.Image:
    """The classes that fill most of the targets, with their colors."""
    dense = target.dense()[:, 1:]
    share, best = dense.max(-1)
    mass = torch.zeros(target.num_classes).index_add_(
        0, best.flatten(), (share * target.mask[:, 1:]).flatten().float()
    )
    order = [c for c in mass.argsort(descending=True).tolist()[:_LEGEND] if mass[c] > 0]
    names = [shortened(class_names[c]) for c in order]
    lines: list[list[tuple[str, int]]] = [[]]
    left = _MARGIN
    for c, name in zip(order, names, strict=True):
        needed = int(_font().getlength(name)) + 34
        if left + needed > width and lines[-1]:
            lines.append([])
            left = _MARGIN
        lines[-1].append((name, c))
        left += needed
    legend = Image.new("RGB", (width, _CAPTION * len(lines) + _MARGIN), "white")
    draw = ImageDraw.Draw(legend)
    for number, line in enumerate(lines):
        left, top = _MARGIN, number * _CAPTION + 4
        for name, c in line:
            fill = tuple((colors[c] * 255).astype(int).tolist())
            draw.rectangle((left, top, left + 12, top + 12), fill=fill)
            draw.text((left + 18, top - 1), name, fill="black", font=_font())
            left += int(_font().getlength(name)) + 34
    return legend


def _font(size: int = 12) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
