"""Label maps of things whose place is known: the share of each cell that each class fills."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap

__all__ = ["map_of_areas"]


def map_of_areas(areas: Tensor, classes: Sequence[int], num_classes: int, top_k: int) -> LabelMap:
    """The map of areas [P, h, w] in [0, 1] that classes [P] fill; at least one class.

    The unlabeled rest of a cell says nothing about its class, so it is spread evenly over all
    classes. A map names fewer than `top_k` classes where fewer are in the image.
    """
    unlabeled = (1 - areas.sum(0)).clamp(min=0)
    probability = areas + unlabeled / num_classes
    k = min(top_k, len(classes))
    best, slots = probability.topk(k, dim=0)
    return LabelMap(
        scores=best.clamp(min=1e-12).log(),
        classes=torch.tensor(classes)[slots],
        log_normalizer=torch.zeros(areas.shape[1:]),
        extent=Box(),
        num_classes=num_classes,
    )
