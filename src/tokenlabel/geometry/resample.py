"""Exact resampling of maps of cells to grids of tokens through views.

A map is read as the bilinear interpolant of its cell centres (constant beyond the outermost
centres); a token's value is that function's *area average* over the part of the token that is
covered by the map. For axis-aligned views the average is separable and closed-form; otherwise it is
taken over a fine lattice of points.

Shapes: B images, P planes a map, H x W cells, h x w tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tokenlabel.geometry.box import WHOLE, Box
from tokenlabel.geometry.view import View

__all__ = ["TokenSpans", "area_weights", "coverage", "resample", "resample_batch"]


class TokenSpans(NamedTuple):
    """Where the tokens of axis-aligned views lie on one axis of the maps; positions in fractions
    of the map, reversed where the view is flipped."""

    shown: NDArray[np.float64]  # [B, T, 2]: the part of the map that a token shows
    share: NDArray[np.float64]  # [B, T]: how much of the token shows the map
    view: NDArray[np.float64]  # [B, 2]: the whole view, also beyond the map


AxisWeights = Callable[[TokenSpans, int], NDArray[np.floating]]
"""Weights [B, T, cells] of a map's cells in each token, along one axis."""

_LATTICE = 4  # points a side and token, for views that are not axis-aligned


def area_weights(edges: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """Weights [..., cells] that average the linear interpolant over each interval [..., 2].

    Edges are in cell units, within [0, cells]; cell i has its centre at i + 0.5. Weights sum to one;
    those of an empty interval give the interpolant's value at that point.
    """
    start, stop = edges.min(-1), edges.max(-1)
    # an interval of no length has no average: widen it, by an amount far below any cell
    middle, half = (start + stop) / 2, np.maximum((stop - start) / 2, 1e-6)
    ends = np.stack([middle - half, middle + half])
    # hats of the cells and of one virtual neighbour at each end, which repeats the outermost cell
    centers = np.arange(-1, cells + 1) + 0.5
    t = np.clip(ends[..., None] - centers, -1.0, 1.0)
    integral = 0.5 + t - 0.5 * t * np.abs(t)  # of the hat, up to t
    weights = integral[1] - integral[0]
    weights[..., 1] += weights[..., 0]
    weights[..., -2] += weights[..., -1]
    weights = weights[..., 1:-1]
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def resample(
    maps: Tensor, view: View, grid: tuple[int, int], extent: Box = WHOLE
) -> tuple[Tensor, Tensor]:
    """Average maps [P, H, W], which cover `extent` of the source image, over the tokens of `view`.

    Returns values [P, h, w] and coverage [h, w]: the share of each token's area that shows a part
    of the source inside `extent`. Values of tokens with coverage 0 are meaningless but finite.
    """
    values, covered = resample_batch(maps.permute(1, 2, 0)[None], [view], grid, [extent])
    return values[0].permute(2, 0, 1), covered[0]


def coverage(view: View, grid: tuple[int, int], extent: Box = WHOLE) -> Tensor:
    """Share [h, w] of each token's area that shows a part of the source inside `extent`."""
    return resample_batch(torch.zeros(1, 1, 1, 1), [view], grid, [extent])[1][0]


def resample_batch(
    maps: Tensor,
    views: Sequence[View],
    grid: tuple[int, int],
    extents: Sequence[Box],
    axis_weights: AxisWeights | None = None,
) -> tuple[Tensor, Tensor]:
    """`resample` of a batch of maps [B, H, W, P]: values [B, h, w, P] and coverage [B, h, w].

    `axis_weights` is a rule other than the area average for the axis-aligned views.
    """
    rule = axis_weights or _area_weights_of_tokens
    upright = [i for i, view in enumerate(views) if view.axis_aligned]
    if len(upright) == len(views):
        return _resample_upright(maps, views, grid, extents, rule)
    values = maps.new_empty(len(views), *grid, maps.shape[-1])
    covered = maps.new_empty(len(views), *grid)
    if upright:
        values[upright], covered[upright] = _resample_upright(
            maps[upright], [views[i] for i in upright], grid, [extents[i] for i in upright], rule
        )
    for i in sorted(set(range(len(views))) - set(upright)):
        values[i], covered[i] = _resample_slanted(maps[i], views[i], grid, extents[i])
    return values, covered


def _resample_upright(
    maps: Tensor,
    views: Sequence[View],
    grid: tuple[int, int],
    extents: Sequence[Box],
    rule: AxisWeights,
) -> tuple[Tensor, Tensor]:
    weights, shares = [], []
    for axis in (1, 0):
        spans = _token_spans(views, axis, grid[1 - axis], extents)
        weights.append(torch.from_numpy(rule(spans, maps.shape[2 - axis])).to(maps.dtype))
        shares.append(torch.from_numpy(spans.share).to(maps.dtype))
    rows, cols = weights
    by_row = torch.bmm(rows, maps.flatten(2)).view(*rows.shape[:2], *maps.shape[2:])
    return torch.matmul(cols[:, None], by_row), shares[0][:, :, None] * shares[1][:, None]


def _area_weights_of_tokens(spans: TokenSpans, cells: int) -> NDArray[np.float64]:
    return area_weights(np.clip(spans.shown, 0.0, 1.0) * cells, cells)


def _token_spans(
    views: Sequence[View], axis: int, tokens: int, extents: Sequence[Box]
) -> TokenSpans:
    """`TokenSpans` of one axis (0 = x, 1 = y) of axis-aligned views."""
    scale, offset = np.array([view.to_source[axis, [axis, 2]] for view in views]).T
    valid = np.array([view.valid_interval(axis) for view in views])
    start, stop = np.array([extent.as_tuple()[axis::2] for extent in extents]).T
    ends = np.sort((np.stack([start, stop], 1) - offset[:, None]) / scale[:, None])
    low = np.maximum(valid[:, 0], ends[:, 0])[:, None]
    high = np.maximum(np.minimum(valid[:, 1], ends[:, 1])[:, None], low)
    edges = np.clip(np.arange(tokens + 1) / tokens, low, high)  # [B, T + 1]
    to_map = np.stack([scale, offset - start], 1) / (stop - start)[:, None]
    in_map = edges * to_map[:, :1] + to_map[:, 1:]
    return TokenSpans(
        shown=np.stack([in_map[:, :-1], in_map[:, 1:]], -1),
        share=np.clip(np.diff(edges) * tokens, 0.0, 1.0),
        view=np.stack([to_map[:, 1], to_map.sum(1)], 1),
    )


def _resample_slanted(
    maps: Tensor, view: View, grid: tuple[int, int], extent: Box
) -> tuple[Tensor, Tensor]:
    """One map [H, W, P]: values [h, w, P] and coverage [h, w]."""
    points = _lattice(grid)  # [h, w, n, 2]
    source = view.source_points(points)
    origin, size = np.array([extent.x0, extent.y0]), np.array([extent.width, extent.height])
    in_map = (source - origin) / size
    covered = view.valid(points) & (in_map >= 0).all(-1) & (in_map <= 1).all(-1)
    inside = torch.from_numpy(covered).to(maps.dtype)  # [h, w, n]
    h, w, n, _ = points.shape
    sampled = F.grid_sample(
        maps.permute(2, 0, 1)[None],
        torch.from_numpy(in_map * 2 - 1).to(maps.dtype).reshape(1, h, w * n, 2),
        padding_mode="border",
        align_corners=False,
    )[0]  # [P, h, w * n]
    weight = inside / inside.sum(-1, keepdim=True).clamp(min=1)
    values = (sampled.reshape(-1, h, w, n) * weight).sum(-1)
    return values.permute(1, 2, 0), inside.mean(-1)


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
