"""From label maps and views to token targets: the heart of the method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import roi_align

from tokenlabel.errors import InputError
from tokenlabel.geometry import Box, View, coverage, resample
from tokenlabel.labels.label_map import LabelMap
from tokenlabel.targets import TokenTarget

__all__ = ["TargetKind", "token_targets"]

TargetKind = Literal["probability", "released", "released-transposed"]

_MIN_COVERAGE = 0.5  # a token of which less than half shows labelled content has no target


def token_targets(
    label_maps: Sequence[LabelMap],
    views: Sequence[View],
    grid: tuple[int, int],
    kind: TargetKind = "probability",
    smoothing: float = 0.1,
) -> TokenTarget:
    """The soft target of the class token and of each of the h x w tokens of every view.

    - `probability`: the annotator's probabilities of the K classes, averaged over the token's area;
      the mass outside them is spread evenly over all other classes.
    - `released`: the released code's arithmetic: RoIAlign of logits that are zero where a class is
      not among the K, then a softmax in which those zeros take part. Reproduces published runs.
    - `released-transposed`: the same with x and y of the crop exchanged, as the released code did.

    The class token's target is that of one token covering the whole view. Tokens of which the map
    covers less than half carry no target.
    """
    if len(label_maps) != len(views):
        raise ValueError(f"{len(label_maps)} label maps but {len(views)} views")
    make = _probability if kind == "probability" else _released
    targets = [
        make(label_map, _transposed(view) if kind == "released-transposed" else view, grid)
        for label_map, view in zip(label_maps, views, strict=True)
    ]
    offset = smoothing / label_maps[0].num_classes
    # the released smoothing adds the offset without taking it from the true mass: sums are 1 + offset
    factor = 1 - smoothing + (0.0 if kind == "probability" else offset)
    return TokenTarget.concatenate(targets).scaled(factor, offset)


def _probability(label_map: LabelMap, view: View, grid: tuple[int, int]) -> TokenTarget:
    palette, slots = torch.unique(label_map.classes, return_inverse=True)
    probability = label_map.probabilities()
    outside = max(label_map.num_classes - label_map.k, 1)
    rest = ((1 - probability.sum(0)).clamp(min=0) / outside)[None]  # [1, H, W]
    # a cell's palette entries hold what exceeds the cell's own residual, so averages stay exact
    excess = _scatter(probability - rest, slots, len(palette))
    values, covered = resample(torch.cat([excess, rest]), view, grid, label_map.extent)
    whole, covered_whole = resample(torch.cat([excess, rest]), view, (1, 1), label_map.extent)
    values = torch.cat([whole.flatten(1), values.flatten(1)], 1)  # [P + 1, T]
    covered = torch.cat([covered_whole.flatten(), covered.flatten()])
    return TokenTarget(
        classes=palette[None],
        excess=values[:-1].T[None],
        residual=values[-1][None],
        mask=(covered >= _MIN_COVERAGE)[None],
        grid=grid,
        num_classes=label_map.num_classes,
    )


def _released(label_map: LabelMap, view: View, grid: tuple[int, int]) -> TokenTarget:
    if label_map.log_normalizer is not None and not label_map.log_normalizer.any():
        raise InputError(
            "released targets need the annotator's raw logits, these labels keep log-probabilities:"
            " use probability targets, or labels of the exact codec"
        )
    palette, slots = torch.unique(label_map.classes, return_inverse=True)
    logits = _scatter(label_map.scores.float(), slots, len(palette))
    tokens = _roi_align(logits, view, grid, label_map).flatten(1)
    whole = _roi_align(logits, view, (1, 1), label_map).flatten(1)
    values = torch.cat([whole, tokens], 1)  # [P, T]
    others = label_map.num_classes - len(palette)
    # the softmax with its zeros, stable whatever the logits: subtract max(0, best)
    top = values.amax(0).clamp(min=0)
    exponentials, one = (values - top).exp(), (-top).exp()
    normalizer = exponentials.sum(0) + others * one
    residual = one / normalizer
    covered = torch.cat([coverage(view, g, label_map.extent).flatten() for g in ((1, 1), grid)])
    return TokenTarget(
        classes=palette[None],
        excess=(exponentials / normalizer - residual).T[None],
        residual=residual[None],
        mask=(covered >= _MIN_COVERAGE)[None],
        grid=grid,
        num_classes=label_map.num_classes,
    )


def _scatter(values: Tensor, slots: Tensor, size: int) -> Tensor:
    """Spread values [K, H, W] over palette planes [size, H, W]; a plane is 0 where a class is absent."""
    planes = values.new_zeros(size, *values.shape[1:])
    return planes.scatter_add_(0, slots, values)


def _roi_align(logits: Tensor, view: View, grid: tuple[int, int], label_map: LabelMap) -> Tensor:
    """RoIAlign of palette logits [P, H, W] on a crop, flipped where the view is."""
    if not view.axis_aligned:  # the released code had no exact rule for slanted crops
        return resample(logits, view, grid, label_map.extent)[0]
    box, extent = view.source_box(), label_map.extent
    rows, cols = label_map.grid
    region = [
        (box.x0 - extent.x0) / extent.width * cols - 0.5,
        (box.y0 - extent.y0) / extent.height * rows - 0.5,
        (box.x1 - extent.x0) / extent.width * cols - 0.5,
        (box.y1 - extent.y0) / extent.height * rows - 0.5,
    ]
    rois = torch.tensor([[0.0, *region]], dtype=logits.dtype)
    out: Tensor = roi_align(
        logits[None], rois, grid, spatial_scale=1.0, sampling_ratio=-1, aligned=False
    )[0]
    flipped = [axis + 1 for axis in (0, 1) if view.to_source[1 - axis, 1 - axis] < 0]
    return out.flip(flipped) if flipped else out


def _transposed(view: View) -> View:
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
