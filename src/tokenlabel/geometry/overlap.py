"""How the cells of one grid overlap those of another, along one axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Span", "interval_shares"]

Span = tuple[float, float]
"""From where to where along an axis, in pixels or in fractions."""


def interval_shares(span: Span, cells: int, part_span: Span, parts: int) -> NDArray[np.float64]:
    """The share of each of `cells` equal cells of `span` that each of `parts` equal parts of
    `part_span` covers: [cells, parts].
    """
    edges = np.linspace(*span, cells + 1)
    part_edges = np.linspace(*part_span, parts + 1)
    low = np.maximum(edges[:-1, None], part_edges[:-1])
    high = np.minimum(edges[1:, None], part_edges[1:])
    return np.asarray((high - low).clip(0.0) * (cells / (span[1] - span[0])))
