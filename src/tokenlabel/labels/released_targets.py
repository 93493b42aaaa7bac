"""The released code's geometry, for reproducing published runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenlabel.geometry import Box, TokenSpans, View

__all__ = ["bin_weights", "transposed"]


def bin_weights(spans: TokenSpans, cells: int) -> NDArray[np.float32]:
    """Weights [B, T, cells] of RoIAlign along one axis: adaptive sampling, not aligned.

    On a crop RoIAlign is separable: its average of bilinear samples over a bin is the product of
    averages over rows and over columns. A flipped view is a crop whose result is flipped.
    """
    # in float32, as the number of samples jumps where a length is a whole number of cells
    ends = (np.sort(spans.view) * cells - 0.5).astype(np.float32)
    bins = spans.share.shape[1]
    size = np.maximum(ends[:, 1] - ends[:, 0], np.float32(1)) / np.float32(bins)  # [B]
    samples = np.ceil(size)  # [B], in each bin
    place = np.arange(int(samples.max()), dtype=np.float32)
    starts = ends[:, :1] + np.arange(bins, dtype=np.float32) * size[:, None]  # [B, T]
    at = starts[..., None] + ((place + np.float32(0.5)) * (size / samples)[:, None])[:, None]
    counts = (place < samples[:, None])[:, None] & (at >= -1) & (at <= cells)  # [B, T, S]
    distance = np.abs(np.clip(at, 0, cells - 1)[..., None] - np.arange(cells, dtype=np.float32))
    hats = np.maximum(1 - distance, 0) * counts[..., None]
    weights = hats.sum(2) / samples[:, None, None]
    flipped = spans.view[:, 0] > spans.view[:, 1]
    weights[flipped] = weights[flipped, ::-1]
    return np.asarray(weights, np.float32)


def transposed(view: View) -> View:
    """The view whose crop has x and y exchanged: the released code's reading of its own boxes.

    Flips stay as they are, since the released code flipped whole maps before cropping them.
    """
    if not view.axis_aligned:
        raise ValueError("released-transposed targets are defined for crops and flips only")
    box, scale = view.source_box(), view.to_source[[0, 1], [0, 1]]
    x0, x1 = (box.x0, box.x1) if scale[0] > 0 else (1 - box.x1, 1 - box.x0)
    y0, y1 = (box.y0, box.y1) if scale[1] > 0 else (1 - box.y1, 1 - box.y0)
    flipped = View.hflip() if scale[0] < 0 else View.identity()
    flipped = flipped.then(View.vflip()) if scale[1] < 0 else flipped
    return flipped.then(View.crop(Box(y0, x0, y1, x1)))
