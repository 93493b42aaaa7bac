"""From label maps and views to token targets: the heart of the method.

Shapes: B images, K classes a cell, H x W cells, P palette entries an image, T = 1 + h * w targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tokenlabel.errors import InputError
from tokenlabel.geometry import Resampler, View
from tokenlabel.labels.label_map import LabelMap, keep_logits, probabilities
from tokenlabel.labels.released_targets import bin_weights, transposed
from tokenlabel.targets import TokenTarget
from tokenlabel.threads import one_thread

__all__ = ["TargetKind", "token_targets"]

TargetKind = Literal["probability", "released", "released-transposed"]

_CACHED = 300_000  # entries of planes that stay in the processor's cache
_MIN_COVERAGE = 0.5  # a token of which less than half shows labeled content has no target


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
    covers less than half carry no target. Targets are made on the device of the label maps.
    """
    if len(label_maps) != len(views):
        raise ValueError(f"{len(label_maps)} label maps but {len(views)} views")
    if kind == "released-transposed":
        views = [transposed(view) for view in views]
    alike: dict[tuple[torch.Size, bool], list[int]] = {}
    for i, label_map in enumerate(label_maps):
        form = (label_map.scores.shape, label_map.log_normalizer is None)
        alike.setdefault(form, []).append(i)
    make = _probability if kind == "probability" else _released
    device = label_maps[0].scores.device.type if label_maps else "cpu"
    # many small products: waking a second thread for each costs ten times what it saves
    with one_thread(), torch.autocast(device, enabled=False):  # also within a half-precision pass
        parts = [
            make([label_maps[i] for i in group], [views[i] for i in group], grid, smoothing)
            for group in alike.values()
        ]
    if len(parts) == 1:
        return parts[0]
    order = torch.tensor([i for group in alike.values() for i in group]).argsort()
    return TokenTarget.concatenate(parts).take(order.to(parts[0].classes.device))


def _probability(
    label_maps: Sequence[LabelMap], views: Sequence[View], grid: tuple[int, int], smoothing: float
) -> TokenTarget:
    first = label_maps[0]
    palette = _Palette.of(label_maps)
    resampler = Resampler(views, first.grid, grid, [label_map.extent for label_map in label_maps])
    target = palette.empty_target(resampler.covered, grid)
    probability = probabilities(*_stacked(label_maps))
    total = probability.sum(1, keepdim=True)  # [B, 1, H, W]
    probability /= total.clamp(min=1)  # above 1 by rounding in the store
    rest = (1 - total).clamp_(min=0) / max(first.num_classes - first.k, 1)
    # a cell's palette entries hold what exceeds the cell's own residual, so averages stay exact
    excess = (probability - rest).mul_(1 - smoothing)
    residual = rest[:, 0] * (1 - smoothing) + smoothing / first.num_classes
    for part in palette.parts:
        planes = palette.planes(excess[part], part)
        planes[..., -1] = residual[part]
        values = resampler(planes, part.start)
        target.excess[part], target.residual[part] = values[..., :-1], values[..., -1]
    return target


def _released(
    label_maps: Sequence[LabelMap], views: Sequence[View], grid: tuple[int, int], smoothing: float
) -> TokenTarget:
    first, extents = label_maps[0], [label_map.extent for label_map in label_maps]
    scores, log_normalizer = _stacked(label_maps)
    if not keep_logits(log_normalizer):
        raise InputError(
            "released targets need the annotator's raw logits, these labels keep log-probabilities:"
            " use probability targets, or labels of the exact codec and of one view"
        )
    palette = _Palette.of(label_maps)
    resampler = Resampler(views, first.grid, grid, extents, bin_weights)
    target = palette.empty_target(resampler.covered, grid)
    # the released smoothing adds the offset without taking it from the true mass: sums exceed 1
    offset = smoothing / first.num_classes
    # entries that pad a shorter palette have logit 0, as every class outside it
    others = first.num_classes - palette.classes.shape[1]
    for part in palette.parts:
        logits = resampler(palette.planes(scores[part], part), part.start)
        share = logits.softmax(-1)  # as if there were one class outside the palette
        outside = share[..., -1:]
        factor = (1 - smoothing + offset) / (1 + (others - 1) * outside)
        torch.mul(share[..., :-1] - outside, factor, out=target.excess[part])
        target.residual[part] = (outside * factor + offset)[..., 0]
    return target


def _stacked(label_maps: Sequence[LabelMap]) -> tuple[Tensor, Tensor | None]:
    """Scores [B, K, H, W] and log-normalizers [B, H, W] of maps that all have them, or none."""
    scores = torch.stack([label_map.scores for label_map in label_maps]).float()
    known = [m.log_normalizer for m in label_maps if m.log_normalizer is not None]
    return scores, torch.stack(known).float() if known else None


class _Palette(NamedTuple):
    """The distinct classes of each of a batch of maps, padded to the longest list with class 0."""

    classes: Tensor  # [B, P] int64
    slots: Tensor  # [B, K, H, W] int64: where in its image's palette each entry of a map is
    num_classes: int

    @classmethod
    def of(cls, label_maps: Sequence[LabelMap]) -> _Palette:
        num_classes = label_maps[0].num_classes
        if any(label_map.num_classes != num_classes for label_map in label_maps):
            raise ValueError("label maps of different class counts cannot form one batch")
        ids = torch.stack([label_map.classes for label_map in label_maps])
        flat = ids.flatten(1)
        present = flat.new_zeros(len(ids), num_classes, dtype=torch.int32).scatter_(1, flat, 1)
        slots = (present.cumsum(1) - 1).gather(1, flat)
        classes = flat.new_zeros(len(ids), int(slots.max()) + 1)
        return cls(classes.scatter_(1, slots, flat), slots.view_as(ids), num_classes)

    @property
    def parts(self) -> list[slice]:
        """As many images at a time as have planes that stay in the processor's cache."""
        if self.classes.device.type != "cpu":
            return [slice(0, len(self.classes))]
        entries = self.slots[0, 0].numel() * (self.classes.shape[1] + 1)
        count = max(_CACHED // entries, 1)
        return [slice(i, i + count) for i in range(0, len(self.classes), count)]

    def planes(self, values: Tensor, part: slice) -> Tensor:
        """Values [b, K, H, W] of a part by palette entry: [b, H, W, P + 1], 0 where absent.

        The last plane is that of all classes outside the palette: 0 so far.
        """
        values, slots = values.permute(0, 2, 3, 1), self.slots[part].permute(0, 2, 3, 1)
        planes = values.new_zeros(*values.shape[:3], self.classes.shape[1] + 1)
        return planes.scatter_add_(3, slots, values)

    def empty_target(self, covered: Tensor, grid: tuple[int, int]) -> TokenTarget:
        """The targets of `covered` [B, T] tokens, whose excess and residual are yet to be filled."""
        device = self.classes.device
        excess = torch.empty(*covered.shape, self.classes.shape[1], device=device)
        residual, mask = excess.new_empty(covered.shape), (covered >= _MIN_COVERAGE).to(device)
        return TokenTarget(self.classes, excess, residual, mask, grid, self.num_classes)
