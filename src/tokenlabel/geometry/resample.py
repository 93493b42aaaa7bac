"""Exact resampling of a map of cells to a grid of tokens through a `View`.

The map is read as the bilinear interpolant of its cell centres (constant beyond the outermost
centres); a token's value is that function's *area average* over the part of the token that is
covered by the map. For axis-aligned views the average is separable and closed-form; otherwise it is
taken over a fine lattice of points.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tokenlabel.geometry.box import WHOLE, Box
from tokenlabel.geometry.view import View

__all__ = ["area_weights", "coverage", "resample"]

_LATTICE = 4  # points a side and token, for views that are not axis-aligned


def area_weights(edges: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """Weights [T, cells] that average the linear interpolant over each interval `edges` [T, 2].

    Edges are in cell units, within [0, cells]; cell i has its centre at i + 0.5. Rows sum to one;
    the row of an empty interval is the interpolant's value at that point.
    """
    start, stop = edges.min(1), edges.max(1)
    # an interval of no length has no average: widen it, by an amount far below any cell
    middle, half = (start + stop) / 2, np.maximum((stop - start) / 2, 1e-6)
    ends = np.stack([middle - half, middle + half])
    # hats of the cells and of one virtual neighbour at each end, which repeats the outermost cell
    centers = np.arange(-1, cells + 1) + 0.5
    t = np.clip(ends[..., None] - centers, -1.0, 1.0)
    integral = np.where(t < 0, 0.5 * (1 + t) ** 2, 1 - 0.5 * (1 - t) ** 2)
    weights = integral[1] - integral[0]
    weights[:, 1] += weights[:, 0]
    weights[:, -2] += weights[:, -1]
    weights = weights[:, 1:-1]
    return np.asarray(weights / weights.sum(1, keepdims=True))


def resample(
    maps: Tensor, view: View, grid: tuple[int, int], extent: Box = WHOLE
) -> tuple[Tensor, Tensor]:
    """Average maps [P, H, W], which cover `extent` of the source image, over the tokens of `view`.

    Returns values [P, h, w] and coverage [h, w]: the share of each token's area that shows a part
    of the source inside `extent`. Values of tokens with coverage 0 are meaningless but finite.
    """
    if view.axis_aligned:
        rows, cover_y = _axis(view, 1, grid[0], maps.shape[1], extent.y0, extent.y1)
        cols, cover_x = _axis(view, 0, grid[1], maps.shape[2], extent.x0, extent.x1)
        to_rows = torch.from_numpy(rows).to(maps.dtype)
        to_cols = torch.from_numpy(cols).to(maps.dtype)
        covered = torch.from_numpy(np.outer(cover_y, cover_x)).to(maps.dtype)
        return to_rows @ maps @ to_cols.T, covered
    points = _lattice(grid)  # [h, w, n, 2]
    inside = torch.from_numpy(_covered(points, view, extent)).to(maps.dtype)  # [h, w, n]
    source = view.source_points(points)
    origin, size = np.array([extent.x0, extent.y0]), np.array([extent.width, extent.height])
    where = torch.from_numpy((source - origin) / size * 2 - 1).to(maps.dtype)
    h, w, n, _ = points.shape
    sampled = F.grid_sample(
        maps[None], where.reshape(1, h, w * n, 2), padding_mode="border", align_corners=False
    )[0]
    weight = inside / inside.sum(-1, keepdim=True).clamp(min=1)
    return (sampled.reshape(-1, h, w, n) * weight).sum(-1), inside.mean(-1)


def coverage(view: View, grid: tuple[int, int], extent: Box = WHOLE) -> Tensor:
    """Share [h, w] of each token's area that shows a part of the source inside `extent`."""
    if view.axis_aligned:
        _, cover_y = _axis(view, 1, grid[0], 1, extent.y0, extent.y1)
        _, cover_x = _axis(view, 0, grid[1], 1, extent.x0, extent.x1)
        return torch.from_numpy(np.outer(cover_y, cover_x)).float()
    return torch.from_numpy(_covered(_lattice(grid), view, extent).mean(-1)).float()


def _axis(
    view: View, axis: int, tokens: int, cells: int, start: float, stop: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One axis of an axis-aligned view: weights [tokens, cells] and covered share [tokens]."""
    scale, offset = float(view.to_source[axis, axis]), float(view.to_source[axis, 2])
    ends = sorted(((start - offset) / scale, (stop - offset) / scale))
    valid = view.valid_interval(axis)
    low, high = max(valid[0], ends[0]), min(valid[1], ends[1])
    edges = np.arange(tokens + 1) / tokens
    clipped = np.clip(np.stack([edges[:-1], edges[1:]], 1), low, max(low, high))
    share = np.clip((clipped[:, 1] - clipped[:, 0]) * tokens, 0.0, 1.0)
    in_cells = (clipped * scale + offset - start) / (stop - start) * cells
    return area_weights(np.clip(in_cells, 0.0, cells), cells), share


def _lattice(grid: tuple[int, int]) -> NDArray[np.float64]:
    """Output points [h, w, n, 2] that stand evenly inside each token."""
    h, w = grid
    inner = (np.arange(_LATTICE) + 0.5) / _LATTICE
    ys = (np.arange(h)[:, None] + inner) / h  # [h, s]
    xs = (np.arange(w)[:, None] + inner) / w  # [w, s]
    shape = (h, w, _LATTICE, _LATTICE)
    y = np.broadcast_to(ys[:, None, :, None], shape)
    x = np.broadcast_to(xs[None, :, None, :], shape)
    return np.stack([x, y], -1).reshape(h, w, _LATTICE * _LATTICE, 2)


def _covered(points: NDArray[np.float64], view: View, extent: Box) -> NDArray[np.bool_]:
    """Which output points show a part of the source inside `extent`."""
    source = view.source_points(points)
    x, y = source[..., 0], source[..., 1]
    inside = (x >= extent.x0) & (x <= extent.x1) & (y >= extent.y0) & (y <= extent.y1)
    return np.asarray(view.valid(points) & inside)
