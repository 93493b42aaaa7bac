"""Exact resampling of maps of cells to grids of tokens through views.

A map is read as the bilinear interpolant of its cell centers (constant beyond the outermost
centers); a token's value is that function's *area average* over the part of the token that is
covered by the map. For axis-aligned views the average is separable and closed-form; otherwise it is
taken over a fine lattice of points.

Shapes: B images, P planes a map, H x W cells, h x w tokens, T = 1 + h * w targets an image (the
whole view, then its tokens).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenlabel.geometry.box import WHOLE, Box
from tokenlabel.geometry.view import Row, View, leaves, pixel_centers

__all__ = ["Resampler", "TokenSpans", "area_weights", "coverage", "resample"]

_LATTICE = 4  # points a side and token, for views that are not axis-aligned


class TokenSpans(NamedTuple):
    """Where the tokens of axis-aligned views lie on one axis of the maps; positions in fractions
    of the map, reversed where the view is flipped."""

    shown: NDArray[np.float64]  # [B, T, 2]: the part of the map that a token shows
    share: NDArray[np.float64]  # [B, T]: how much of the token shows the map
    view: NDArray[np.float64]  # [B, 2]: the whole view, also beyond the map


AxisWeights = Callable[[TokenSpans, int], NDArray[np.floating]]
"""Weights [B, T, cells] of a map's cells in each token, along one axis."""


def area_weights(edges: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """Weights [..., cells] that average the linear interpolant over each interval [..., 2].

    Edges are in cell units, within [0, cells]; cell i has its center at i + 0.5. Weights sum to one;
    those of an empty interval give the interpolant's value at that point.
    """
    start, stop = edges.min(-1), edges.max(-1)
    # an interval of no length has no average: widen it, by an amount far below any cell
    middle, half = (start + stop) / 2, np.maximum((stop - start) / 2, 1e-6)
    ends = np.stack([middle - half, middle + half])
    # hats of the cells and of one virtual neighbor at each end, which repeats the outermost cell
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
    planes, rows, cols = maps.shape
    resampler = Resampler([view], (rows, cols), grid, [extent])
    values = resampler(maps.permute(1, 2, 0)[None])[0, 1:]
    return values.T.reshape(planes, *grid), resampler.covered[0, 1:].view(grid).to(maps.dtype)


def coverage(view: View, grid: tuple[int, int], extent: Box = WHOLE) -> Tensor:
    """Share [h, w] of each token's area that shows a part of the source inside `extent`."""
    return Resampler([view], (1, 1), grid, [extent]).covered[0, 1:].view(grid).float()


class Resampler:
    """How the targets of a batch of views average the cells of their maps."""

    def __init__(
        self,
        views: Sequence[View],
        cells: tuple[int, int],
        grid: tuple[int, int],
        extents: Sequence[Box],
        axis_weights: AxisWeights | None = None,
    ) -> None:
        """`cells` = (H, W) of every map, `grid` = (h, w) of the tokens, `extents` as in `resample`.

        `axis_weights` is a rule other than the area average for the axis-aligned views.
        """
        rule = axis_weights or _token_area_weights
        self.grid = grid
        self._slanted = {
            i: _Lattice(v, cells, grid, extents[i])
            for i, v in enumerate(views)
            if not v.axis_aligned
        }
        upright = [view if view.axis_aligned else View.identity() for view in views]
        self._weights = []  # (rows [B, n, H], columns [B, m, W]) for the whole view and the tokens
        covered = []
        by_axis = [_token_spans(upright, axis, (1, grid[1 - axis]), extents) for axis in (1, 0)]
        for spans in zip(*by_axis, strict=True):
            rows, cols = (
                torch.from_numpy(rule(span, n)) for span, n in zip(spans, cells, strict=True)
            )
            self._weights.append((rows, cols))
            shares = spans[0].share[:, :, None] * spans[1].share[:, None]
            covered.append(torch.from_numpy(shares).flatten(1))
        self.covered = torch.cat(covered, 1)  # [B, T]
        for i, lattice in self._slanted.items():
            self.covered[i] = lattice.covered

    def __call__(self, maps: Tensor, first: int = 0) -> Tensor:
        """Values [b, T, P], where the maps are, of maps [b, H, W, P] of images `first` and following."""
        part = slice(first, first + len(maps))
        out = maps.new_empty(len(maps), self.covered.shape[1], maps.shape[-1])
        for (rows, cols), (n, m), targets in zip(
            self._weights, ((1, 1), self.grid), (slice(0, 1), slice(1, None)), strict=True
        ):
            by_row = torch.bmm(rows[part].to(maps), maps.flatten(2))
            by_row = by_row.view(-1, n, *maps.shape[2:])
            values = torch.matmul(cols[part, None].to(maps), by_row)  # [b, n, m, P]
            out[:, targets] = values.view(-1, n * m, maps.shape[-1])
        for i in range(part.start, part.stop):
            if i in self._slanted:
                out[i - first] = self._slanted[i](maps[i - first])
        return out


# -- axis-aligned views ----------------------------------------------------------------------------


def _token_area_weights(spans: TokenSpans, cells: int) -> NDArray[np.float64]:
    return area_weights(np.clip(spans.shown, 0.0, 1.0) * cells, cells)


def _token_spans(
    views: Sequence[View], axis: int, grids: Sequence[int], extents: Sequence[Box]
) -> list[TokenSpans]:
    """`TokenSpans` of one axis (0 = x, 1 = y) of axis-aligned views, for each number of tokens."""
    stages = np.array([view.stages[0] for view in views])
    scale, offset = stages[:, 4 * axis], stages[:, 3 * axis + 2]
    valid = np.array([view.valid_interval(axis) for view in views])
    start, stop = np.array([extent.as_tuple()[axis::2] for extent in extents]).T
    ends = np.sort((np.stack([start, stop], 1) - offset[:, None]) / scale[:, None])
    low = np.maximum(valid[:, :1], ends[:, :1])
    high = np.maximum(np.minimum(valid[:, 1:], ends[:, 1:]), low)
    to_map = np.stack([scale, offset - start], 1) / (stop - start)[:, None]
    spans = []
    for tokens in grids:
        edges = np.clip(np.arange(tokens + 1) / tokens, low, high)  # [B, T + 1]
        in_map = edges * to_map[:, :1] + to_map[:, 1:]
        spans.append(
            TokenSpans(
                shown=np.stack([in_map[:, :-1], in_map[:, 1:]], -1),
                share=np.clip(np.diff(edges) * tokens, 0.0, 1.0),
                view=np.stack([to_map[:, 1], to_map.sum(1)], 1),
            )
        )
    return spans


# -- other views -----------------------------------------------------------------------------------


class _Lattice:
    """Weights of a map's cells in the tokens of one view, by points that stand evenly inside them.

    Each point stands for a small part of its token, and counts by how much of that part is covered.
    """

    def __init__(
        self, view: View, cells: tuple[int, int], grid: tuple[int, int], extent: Box
    ) -> None:
        points = (grid[0] * _LATTICE, grid[1] * _LATTICE)
        x, y = (place.astype(np.float32) for place in pixel_centers(points))
        to_map = _in_map(view, extent)
        covered = np.ones(points, np.float32)
        for row in dict.fromkeys((*view.clipping_rows(), *(row for row in to_map if leaves(row)))):
            np.minimum(covered, _covered(row, x, y), out=covered)  # several may have one edge
        by_token = covered.reshape(grid[0], _LATTICE, grid[1], _LATTICE)
        tokens = by_token.mean((1, 3))
        by_token /= np.maximum(tokens, 1e-9)[:, None, :, None] * _LATTICE**2
        in_map = [a * x + b * y + c for a, b, c in to_map]
        weights = _bilinear_weights(in_map[0], in_map[1], covered, cells, grid)
        tokens = tokens.ravel()
        # the whole view is the union of its tokens, each of which counts by what is covered of it
        np.matmul(tokens / max(tokens.sum(), 1e-9), weights[1:], out=weights[0])
        self.covered = torch.from_numpy(np.concatenate([tokens.mean(keepdims=True), tokens]))
        self._weights = torch.from_numpy(weights)  # [T, H * W]

    def __call__(self, maps: Tensor) -> Tensor:
        """Values [T, P] of maps [H, W, P]."""
        return self._weights.to(maps) @ maps.flatten(0, 1)


def _in_map(view: View, extent: Box) -> tuple[Row, Row]:
    """The coordinates of output points in fractions of a map, as (a, b, c): a x + b y + c."""
    a, b, c, d, e, f = view.stages[0]
    x, y = extent.width, extent.height
    return (a / x, b / x, (c - extent.x0) / x), (d / y, e / y, (f - extent.y0) / y)


def _covered(row: Row, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much of the part that each lattice point stands for has a coordinate in [0, 1]: [n, m].

    Exact where the coordinate is constant along rows or columns, nearly so elsewhere.
    """
    a, b, c = row
    width = max(abs(a) / x.size + abs(b) / y.size, 1e-12)  # of the part, in this coordinate
    share = np.abs(a / width * x + (b * y + (c - 0.5)) / width)  # from the middle, in parts
    np.subtract(0.5 / width + 0.5, share, out=share)
    return np.asarray(share.clip(0.0, min(1.0, 1 / width)))


def _bilinear_weights(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    share: NDArray[np.floating],
    cells: tuple[int, int],
    grid: tuple[int, int],
) -> NDArray[np.float64]:
    """Weights [T, H * W] of cells in the sums, by `share`, of the map at points of each token.

    Points [h * s, w * s] are given in fractions of the map. The first row, of the whole view, is zero.
    """
    height, width = cells
    token = np.arange(1, grid[0] * grid[1] + 1).reshape(grid) * (height * width)
    index = token.repeat(_LATTICE, 0).repeat(_LATTICE, 1)
    parts = []  # of each axis: step in the index, and the weights of the lower and the upper cell
    for place, count, step in ((y, height, width), (x, width, 1)):
        at = np.clip(place * count - 0.5, 0.0, count - 1)
        low = np.minimum(at.astype(np.int64), max(count - 2, 0))
        index += low * step
        beyond = at - low
        parts.append([(0, 1 - beyond), (step, beyond)][: min(count, 2)])
    indices, weights = [], []
    for down, of_row in parts[0]:
        by_row = share * of_row
        for right, of_col in parts[1]:
            indices.append(index + (down + right))
            weights.append(by_row * of_col)
    size = (token.size + 1) * height * width
    counted = np.bincount(np.concatenate(indices, None), np.concatenate(weights, None), size)
    return np.asarray(counted, np.float64).reshape(-1, height * width)
