"""Sliding windows: where they begin, and the mean of what overlapping windows say."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tokenlabel.geometry.overlap import Span, interval_shares

__all__ = ["WindowMean", "window_starts"]

_SAME_EDGE = 1e-6  # of a cell: edges nearer than this are one


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows of `window` pixels begin along an axis of `length` pixels: one each `stride`,
    and the last one ends with the axis. A window that is longer than the axis begins at 0.
    """
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


class WindowMean:
    """The mean of the maps of overlapping windows, on a grid of cells.

    The grid has `cells` = (h, w) equal cells over the region `rows` x `cols` of an image, in pixels.
    A cell's value is the mean over all windows' cells that it overlaps, by the area that they share:
    where grids match, the plain mean of the windows; where they do not, nothing is lost or shifted.
    """

    def __init__(self, rows: Span, cols: Span, cells: tuple[int, int]) -> None:
        self.rows, self.cols, self.cells = rows, cols, cells
        self._total: Tensor | None = None
        self._weight = torch.zeros(cells)

    def add(self, maps: Tensor, top: float, left: float, size: tuple[float, float]) -> None:
        """Maps [..., h, w] of a window at (top, left) of `size` = (height, width) pixels."""
        rows = _Placed(self.rows, self.cells[0], (top, top + size[0]), maps.shape[-2])
        cols = _Placed(self.cols, self.cells[1], (left, left + size[1]), maps.shape[-1])
        if self._total is None:
            self._total = maps.new_zeros(*maps.shape[:-2], *self.cells)
            self._weight = self._weight.to(maps)
        place = (rows.cells, cols.cells)
        self._total[..., *place] += cols.spread(rows.spread(maps.mT).mT)
        self._weight[place] += rows.weight.to(maps)[:, None] * cols.weight.to(maps)

    def mean(self) -> Tensor:
        """The means [..., h, w]. The windows must have covered the region."""
        assert self._total is not None
        return self._total / self._weight


class _Placed:
    """Where the cells of a window lie along one axis of a grid."""

    def __init__(self, span: Span, cells: int, window: Span, parts: int) -> None:
        scale = cells / (span[1] - span[0])  # from pixels to cells of the grid
        start, stop = ((edge - span[0]) * scale for edge in window)
        first = max(math.floor(start + _SAME_EDGE), 0)
        last = min(math.ceil(stop - _SAME_EDGE), cells)
        self.cells = slice(first, last)
        self._parts: slice | None = None
        aligned = abs(start - round(start)) < _SAME_EDGE
        if aligned and abs(stop - start - parts) < _SAME_EDGE * parts:
            self._parts = slice(first - round(start), last - round(start))
            self.weight = torch.ones(last - first)
            return
        touched = (span[0] + first / scale, span[0] + last / scale)
        self._shares = torch.from_numpy(interval_shares(touched, last - first, window, parts))
        self.weight = self._shares.sum(1)

    def spread(self, maps: Tensor) -> Tensor:
        """Maps [..., parts] summed into the cells that they overlap: [..., cells]."""
        if self._parts is not None:
            return maps[..., self._parts]
        return maps @ self._shares.to(maps).T
