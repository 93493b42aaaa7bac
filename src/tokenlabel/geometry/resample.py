"""Exact resampling of maps of cells to grids of tokens through views.

A map is read as the bilinear interpolant of its cell centres (constant beyond the outermost
centres); a token's value is that function's *area average* over the part of the token that is
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
from torch.nn import functional as F

from tokenlabel.geometry.box import WHOLE, Box
from tokenlabel.geometry.view import View, valid_intervals

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
            i: _Lattice(v, grid, extents[i]) for i, v in enumerate(views) if not v.axis_aligned
        }
        stages = _stack_stages([view if view.axis_aligned else View.identity() for view in views])
        self._weights = []  # (rows [B, n, H], columns [B, m, W]) for the whole view and the tokens
        covered = []
        for tokens in ((1, 1), grid):
            spans = [_token_spans(stages, axis, tokens[1 - axis], extents) for axis in (1, 0)]
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
        """Values [b, T, P] of the maps [b, H, W, P] of images `first` to `first + b`."""
        part = slice(first, first + len(maps))
        out = maps.new_empty(len(maps), self.covered.shape[1], maps.shape[-1])
        for (rows, cols), (n, m), targets in zip(
            self._weights, ((1, 1), self.grid), (slice(0, 1), slice(1, None)), strict=True
        ):
            by_row = torch.bmm(rows[part].to(maps.dtype), maps.flatten(2))
            by_row = by_row.view(-1, n, *maps.shape[2:])
            values = torch.matmul(cols[part, None].to(maps.dtype), by_row)  # [b, n, m, P]
            out[:, targets] = values.view(-1, n * m, maps.shape[-1])
        for i in range(part.start, part.stop):
            if i in self._slanted:
                out[i - first] = self._slanted[i](maps[i - first])
        return out


# -- axis-aligned views ----------------------------------------------------------------------------


def _stack_stages(views: Sequence[View]) -> NDArray[np.float64]:
    """Stages [B, S, 2, 3]: views of fewer than S repeat their first, which clips nothing anew."""
    most = max(len(view.stages) for view in views)
    return np.stack([view.stages[np.arange(most) % len(view.stages)] for view in views])


def _token_area_weights(spans: TokenSpans, cells: int) -> NDArray[np.float64]:
    return area_weights(np.clip(spans.shown, 0.0, 1.0) * cells, cells)


def _token_spans(
    stages: NDArray[np.float64], axis: int, tokens: int, extents: Sequence[Box]
) -> TokenSpans:
    """`TokenSpans` of one axis (0 = x, 1 = y)."""
    scale, offset = stages[:, 0, axis, axis], stages[:, 0, axis, 2]
    start, stop = np.array([extent.as_tuple()[axis::2] for extent in extents]).T
    ends = np.sort((np.stack([start, stop], 1) - offset[:, None]) / scale[:, None])
    valid = valid_intervals(stages, axis)
    low = np.maximum(valid[:, :1], ends[:, :1])
    high = np.maximum(np.minimum(valid[:, 1:], ends[:, 1:]), low)
    edges = np.clip(np.arange(tokens + 1) / tokens, low, high)  # [B, T + 1]
    to_map = np.stack([scale, offset - start], 1) / (stop - start)[:, None]
    in_map = edges * to_map[:, :1] + to_map[:, 1:]
    return TokenSpans(
        shown=np.stack([in_map[:, :-1], in_map[:, 1:]], -1),
        share=np.clip(np.diff(edges) * tokens, 0.0, 1.0),
        view=np.stack([to_map[:, 1], to_map.sum(1)], 1),
    )


# -- other views -----------------------------------------------------------------------------------


class _Lattice:
    """Points that stand evenly inside the tokens of one view, and where they lie on its map."""

    def __init__(self, view: View, grid: tuple[int, int], extent: Box) -> None:
        points = _lattice(grid)  # [h * w, n, 2]
        origin, size = np.array([extent.x0, extent.y0]), np.array([extent.width, extent.height])
        self._in_map = (view.source_points(points) - origin) / size
        inside = view.valid(points) & (self._in_map >= 0).all(-1) & (self._in_map <= 1).all(-1)
        self._inside = torch.from_numpy(inside)
        tokens = self._inside.double().mean(1)
        self.covered = torch.cat([tokens.mean()[None], tokens])  # [T]

    def __call__(self, maps: Tensor) -> Tensor:
        """Values [T, P] of maps [H, W, P]."""
        where = torch.from_numpy(self._in_map * 2 - 1).to(maps.dtype)
        sampled = F.grid_sample(
            maps.permute(2, 0, 1)[None], where[None], padding_mode="border", align_corners=False
        )[0]  # [P, h * w, n]
        inside = self._inside.to(maps.dtype)
        tokens = (sampled * (inside / inside.sum(1, keepdim=True).clamp(min=1))).sum(2).T
        # the whole view is the union of its tokens, each of which counts by what is covered of it
        share = self.covered[1:].to(maps.dtype)
        return torch.cat([(share / share.sum().clamp(min=1e-9))[None] @ tokens, tokens])


def _lattice(grid: tuple[int, int]) -> NDArray[np.float64]:
    """Output points [h * w, n, 2] that stand evenly inside each token."""
    h, w = grid
    inner = (np.arange(_LATTICE) + 0.5) / _LATTICE
    ys = (np.arange(h)[:, None] + inner) / h  # [h, s]
    xs = (np.arange(w)[:, None] + inner) / w  # [w, s]
    shape = (h, w, _LATTICE, _LATTICE)
    y = np.broadcast_to(ys[:, None, :, None], shape)
    x = np.broadcast_to(xs[None, :, None, :], shape)
    return np.stack([x, y], -1).reshape(h * w, _LATTICE * _LATTICE, 2)
