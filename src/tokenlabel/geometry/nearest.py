"""What a view shows of a map of numbers that must not be averaged: class labels."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tokenlabel.geometry.view import View

__all__ = ["render_nearest"]

Number = TypeVar("Number", bound=np.integer)


def render_nearest(
    numbers: NDArray[Number], view: View, size: tuple[int, int], fill: int
) -> NDArray[Number]:
    """The numbers [h, w] of a view of `numbers` [H, W]; `size` = (h, w).

    Each output pixel takes the source pixel in which its center lies, and `fill` where the view
    shows no source content there.
    """
    x = (np.arange(size[1]) + 0.5) / size[1]
    y = (np.arange(size[0]) + 0.5) / size[0]
    if view.axis_aligned:
        rows = _pixels(view.to_source[1, 1] * y + view.to_source[1, 2], numbers.shape[0])
        cols = _pixels(view.to_source[0, 0] * x + view.to_source[0, 2], numbers.shape[1])
        shown = numbers[np.ix_(rows, cols)]
        inside = np.logical_and.outer(_between(y, view, 1), _between(x, view, 0))
    else:
        points = np.stack(np.broadcast_arrays(x, y[:, None]), -1)
        source = view.source_points(points)
        shown = numbers[
            _pixels(source[..., 1], numbers.shape[0]), _pixels(source[..., 0], numbers.shape[1])
        ]
        inside = view.valid(points)
    shown[~inside] = fill
    return shown


def _pixels(position: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """The pixel of each position in fractions; positions outside find the outermost."""
    return np.clip(np.floor(position * count), 0, count - 1).astype(np.intp)


def _between(position: NDArray[np.float64], view: View, axis: int) -> NDArray[np.bool_]:
    low, high = view.valid_interval(axis)
    return np.asarray((position >= low) & (position <= high))
