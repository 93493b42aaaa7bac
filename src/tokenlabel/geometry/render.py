"""What a view shows of an image, as pixels: one antialiased resampling at the output size."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from tokenlabel.geometry.view import View

__all__ = ["GREY", "Interpolation", "Pixels", "render"]

Pixels = NDArray[np.uint8]
Interpolation = Literal["bilinear", "bicubic"]

GREY = (128, 128, 128)

_PIL_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_SHARPNESS = 1.25  # scale before a warp: nearest to warping first and resizing then, of 1 to 2
_WHOLE_PIXELS = 1e-6  # what lies this near to a pixel edge lies on it


def render(
    image: Pixels,
    view: View,
    size: tuple[int, int],
    interpolation: Interpolation = "bilinear",
    fill: tuple[int, int, int] = GREY,
) -> Pixels:
    """The pixels [h, w, 3] uint8 of a view of `image` [H, W, 3] uint8; `size` = (h, w).

    Crops and flips are resized with an antialiasing filter, as `PIL.Image.resize` does. Other views
    are resized by the filter to nearly the output's scale and then warped once, bilinearly. Pixels that
    show no source content get the colour `fill`.
    """
    if view.axis_aligned:
        return _render_upright(image, view, size, interpolation, fill)
    return _render_slanted(image, view, size, interpolation, fill)


def _render_upright(
    image: Pixels,
    view: View,
    size: tuple[int, int],
    interpolation: Interpolation,
    fill: tuple[int, int, int],
) -> Pixels:
    place, region, flipped = [], [], []
    for axis, (pixels, source) in ((1, (size[0], image.shape[0])), (0, (size[1], image.shape[1]))):
        low, high = view.valid_interval(axis)
        first = math.ceil(low * pixels - _WHOLE_PIXELS)
        last = math.floor(high * pixels + _WHOLE_PIXELS)
        if first >= last:
            return np.full((*size, 3), fill, np.uint8)
        scale, offset = float(view.to_source[axis, axis]), float(view.to_source[axis, 2])
        ends = sorted((scale * end / pixels + offset) * source for end in (first, last))
        place.append(slice(first, last))
        region.append((max(ends[0], 0.0), min(ends[1], float(source))))
        if scale < 0:
            flipped.append(1 - axis)
    rows, cols = place
    content = _resize(
        image, region, (rows.stop - rows.start, cols.stop - cols.start), interpolation
    )
    if flipped:  # NumPy's copy of a flipped view takes six times as long
        content = torch.from_numpy(content).flip(flipped).numpy()
    if content.shape[:2] == size:
        return content
    out = np.full((*size, 3), fill, np.uint8)
    out[rows, cols] = content
    return out


def _render_slanted(
    image: Pixels,
    view: View,
    size: tuple[int, int],
    interpolation: Interpolation,
    fill: tuple[int, int, int],
) -> Pixels:
    source = np.array([image.shape[1], image.shape[0]], np.float64)  # x, y, as matrices have them
    output = np.array([size[1], size[0]], np.float64)
    matrix = view.to_source * source[:, None] / np.array([*output, 1.0])  # pixels to pixels
    box = np.array(view.source_box().as_tuple()).reshape(2, 2) * source
    low, high = np.floor(np.maximum(box[0], 0.0)), np.ceil(np.minimum(box[1], source))
    if (low >= high).any():
        return np.full((*size, 3), fill, np.uint8)
    step = np.hypot(matrix[:, 0], matrix[:, 1])  # source pixels, in x and y, to an output pixel
    shrink = np.maximum(step / _SHARPNESS, 1.0)
    reduced = np.maximum(np.round((high - low) / shrink), 1.0)
    width, height = reduced.astype(int).tolist()
    region = [(low[1], high[1]), (low[0], high[0])]
    near = Image.fromarray(_resize(image, region, (height, width), interpolation))
    matrix[:, 2] -= low
    matrix *= (reduced / (high - low))[:, None]
    warped = near.transform(
        (size[1], size[0]),
        Image.Transform.AFFINE,
        tuple(matrix.ravel().tolist()),
        Image.Resampling.BILINEAR,
        fillcolor=fill,
    )
    out: Pixels = np.array(warped)
    if len(view.stages) > 1:  # content that an intermediate canvas had cut off
        out[~view.valid_pixels(size)] = fill
    return out


def _resize(
    image: Pixels,
    region: list[tuple[float, float]],
    size: tuple[int, int],
    interpolation: Interpolation,
) -> Pixels:
    """Resize `region`, ((top, bottom), (left, right)) in pixels, to `size`, antialiased."""
    whole = [(round(start), round(stop)) for start, stop in region]
    (top, bottom), (left, right) = whole
    if np.abs(np.array(region) - whole).max() < _WHOLE_PIXELS:
        return _resize_whole_pixels(image[top:bottom, left:right], size, interpolation)
    support = 3  # pixels that Pillow's filters may read on each side, at unit scale
    rows, cols = (
        _outward(*span, support * max((span[1] - span[0]) / pixels, 1.0), limit)
        for span, pixels, limit in zip(region, size, image.shape, strict=False)
    )
    part = Image.fromarray(image[rows, cols])
    (top_edge, bottom_edge), (left_edge, right_edge) = region
    box = (
        left_edge - cols.start,
        top_edge - rows.start,
        right_edge - cols.start,
        bottom_edge - rows.start,
    )
    return np.array(part.resize((size[1], size[0]), _PIL_FILTERS[interpolation], box))


def _resize_whole_pixels(part: Pixels, size: tuple[int, int], kind: Interpolation) -> Pixels:
    """torch's vectorised uint8 resize: as Pillow's to a grey level, in a third of the time."""
    if part.shape[:2] == size:
        return part.copy()
    # in this very order, torch sees channels last and keeps them so
    planes = torch.from_numpy(np.ascontiguousarray(part))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(planes, size, mode=kind, antialias=True, align_corners=False)
    return resized[0].permute(1, 2, 0).numpy()


def _outward(start: float, stop: float, margin: float, limit: int) -> slice:
    """Whole pixels around [start, stop] and a margin, within [0, limit]."""
    return slice(max(math.floor(start - margin), 0), min(math.ceil(stop + margin), limit))
