"""What a view shows of an image, as pixels: one antialiased resampling at the output size."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from tokenlabel.geometry.overlap import Span
from tokenlabel.geometry.view import View, pixel_centers

__all__ = ["GRAY", "Color", "Interpolation", "Pixels", "render"]

Pixels = NDArray[Any]
"""[H, W, C] from 0 (black) to 255 (white): uint8, or float32 of images of more than 8 bits."""

Interpolation = Literal["bilinear", "bicubic"]
Color = int | tuple[int, ...]
"""A level of all channels, or one of each."""

GRAY = 128

_PIL_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_SHARPNESS = 1.25  # scale before a warp: nearest to warping first and resizing then, of 1 to 2
_ROUNDING = 1 / 256  # of gray levels, in float32
_WHOLE_PIXELS = 1e-6  # what lies this near to a pixel edge lies on it


def render(
    image: Pixels,
    view: View,
    size: tuple[int, int],
    interpolation: Interpolation = "bilinear",
    fill: Color = GRAY,
) -> Pixels:
    """The pixels [h, w, C] of a view of `image` [H, W, C], of its type; `size` = (h, w).

    Crops and flips are resized with an antialiasing filter, as `PIL.Image.resize` does. Other views
    are resized by the filter to nearly the output's scale and then warped once, bilinearly. Pixels
    whose center shows no source content (see `View.valid_pixels`) get the color `fill`.
    """
    if view.axis_aligned and _near(view):
        return _render_upright(image, view, size, interpolation, fill)
    return _render_warped(image, view, size, interpolation, fill)


def _near(view: View) -> bool:
    """Whether a view reaches no further beyond the image than by the image's own size."""
    box = view.source_box()
    return min(box.x0, box.y0) >= -1 and max(box.x1, box.y1) <= 2


def _render_upright(
    image: Pixels,
    view: View,
    size: tuple[int, int],
    interpolation: Interpolation,
    fill: Color,
) -> Pixels:
    left, right = _valid_span(view, 0, size[1])
    top, bottom = _valid_span(view, 1, size[0])
    if top >= bottom or left >= right:
        return np.full((*size, image.shape[2]), fill, image.dtype)
    (height, width), box = image.shape[:2], view.source_box()
    rows, cols = (box.y0 * height, box.y1 * height), (box.x0 * width, box.x1 * width)
    out = _resize(image, rows, cols, size, interpolation)
    flipped = [
        axis for axis, scale in ((0, view.stages[0][4]), (1, view.stages[0][0])) if scale < 0
    ]
    if flipped:  # NumPy's copy of a flipped view takes six times as long
        out = torch.from_numpy(out).flip(flipped).numpy()
    if (bottom - top, right - left) != size:
        out[:top], out[bottom:], out[:, :left], out[:, right:] = fill, fill, fill, fill
    return out


def _valid_span(view: View, axis: int, pixels: int) -> tuple[int, int]:
    """The first of `pixels` pixels whose center shows content, and the one behind the last."""
    low, high = view.valid_interval(axis)
    return math.ceil(low * pixels - 0.5), math.floor(high * pixels + 0.5)


def _render_warped(
    image: Pixels,
    view: View,
    size: tuple[int, int],
    interpolation: Interpolation,
    fill: Color,
) -> Pixels:
    (height, width), box = image.shape[:2], view.source_box()
    top, bottom = max(math.floor(box.y0 * height), 0), min(math.ceil(box.y1 * height), height)
    left, right = max(math.floor(box.x0 * width), 0), min(math.ceil(box.x1 * width), width)
    if top >= bottom or left >= right:
        return np.full((*size, image.shape[2]), fill, image.dtype)
    a, b, c, d, e, f = view.stages[0]
    scales = (  # source pixels, in y and x, to an output pixel
        math.hypot(d / size[1], e / size[0]) * height,
        math.hypot(a / size[1], b / size[0]) * width,
    )
    rows, cols = (
        max(round(pixels / max(scale / _SHARPNESS, 1.0)), 1)
        for pixels, scale in zip((bottom - top, right - left), scales, strict=True)
    )
    near = _resize_whole_pixels(image[top:bottom, left:right], (rows, cols), interpolation)
    x, y = pixel_centers(size)
    at = np.empty((*size, 2), np.float32)  # torch's positions: -1 to 1 within what was resized
    for axis, (p, q, r), start, pixels in (
        (0, (a, b, c), left / width, (right - left) / width),
        (1, (d, e, f), top / height, (bottom - top) / height),
    ):
        scale = 2 / pixels
        across, down = p * scale * x, q * scale * y + ((r - start) * scale - 1)
        np.add(across.astype(np.float32), down.astype(np.float32), out=at[..., axis])
    warped = F.grid_sample(
        torch.from_numpy(near).permute(2, 0, 1)[None].float(),
        torch.from_numpy(at)[None],
        padding_mode="border",
        align_corners=False,
    )
    valid = view.valid_pixels(size)
    out = np.empty((*size, image.shape[2]), image.dtype)
    if image.dtype == np.uint8:
        # rounded down to a whole gray level, as in Pillow's warps, after adding the rounding error
        planes = warped[0].add_(_ROUNDING).to(torch.uint8).numpy()
    else:
        planes = warped[0].clamp_(0, 255).numpy()
    colors = np.broadcast_to(fill, len(planes)).astype(image.dtype)
    for channel, plane in enumerate(planes):
        out[..., channel] = np.where(valid, plane, colors[channel])
    return out


def _resize(
    image: Pixels, rows: Span, cols: Span, size: tuple[int, int], interpolation: Interpolation
) -> Pixels:
    """Resize a region to `size`, antialiased. Where it reaches beyond the image, edges are repeated."""
    whole = [(round(start), round(stop)) for start, stop in (rows, cols)]
    if all(
        abs(exact - near) < _WHOLE_PIXELS
        for span, pixels in zip((rows, cols), whole, strict=True)
        for exact, near in zip(span, pixels, strict=True)
    ):
        return _resize_whole_pixels(_cut(image, *whole), size, interpolation)
    wide = [
        _outward(span, pixels, limit)
        for span, pixels, limit in zip((rows, cols), size, image.shape, strict=False)
    ]
    (top, _), (left, _) = wide
    box = (cols[0] - left, rows[0] - top, cols[1] - left, rows[1] - top)
    part = _cut(image, *wide)
    to, kind = (size[1], size[0]), _PIL_FILTERS[interpolation]
    if part.dtype == np.uint8 and part.shape[2] == 3:
        return np.array(Image.fromarray(part).resize(to, kind, box))
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(part, 2, 0)]
    resized = np.stack([np.asarray(plane.resize(to, kind, box)) for plane in planes], 2)
    return resized.clip(0, 255)  # of floats, bicubic filters reach beyond what they are given


def _resize_whole_pixels(part: Pixels, size: tuple[int, int], kind: Interpolation) -> Pixels:
    """torch's vectorized resize: of bytes as Pillow's to a gray level, in a third of the time."""
    if part.shape[:2] == size:
        return part.copy()
    # in this very order, torch sees channels last and keeps them so
    planes = torch.from_numpy(np.ascontiguousarray(part))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(planes, size, mode=kind, antialias=True, align_corners=False)
    resized = resized.clamp_(0, 255) if resized.is_floating_point() else resized
    return resized[0].permute(1, 2, 0).numpy()


def _outward(span: Span, pixels: int, limit: int) -> tuple[int, int]:
    """Whole pixels around a span and what Pillow's filters read beside it, of `limit` in the image."""
    start, stop = span
    margin = 3 * max((stop - start) / pixels, 1.0)
    first, last = math.floor(start), math.ceil(stop)
    return min(first, max(math.floor(start - margin), 0)), max(
        last, min(math.ceil(stop + margin), limit)
    )


def _cut(image: Pixels, rows: tuple[int, int], cols: tuple[int, int]) -> Pixels:
    """image[rows, cols], with edges repeated where these lie beyond the image."""
    (top, bottom), (left, right) = rows, cols
    (height, width), inside = image.shape[:2], image[max(top, 0) : bottom, max(left, 0) : right]
    beyond = ((max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0)))
    if beyond == ((0, 0), (0, 0)):
        return inside
    return np.pad(inside, (*beyond, (0, 0)), "edge")
