"""Label maps of things whose place is known: the share of each cell that each class fills."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import PurePosixPath

import torch
from torch import Tensor

from tokenlabel.errors import InputError
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap

__all__ = ["map_of_areas", "require_one_each"]


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


def require_one_each(keys: Iterable[str], place: Callable[[str], Hashable], what: str) -> None:
    """Raise InputError where two images find their `what` at one place: whose it is, is unknown.

    Only images whose names are equal but for folder and suffix are looked at.
    """
    by_stem: dict[str, list[str]] = {}
    for key in keys:
        by_stem.setdefault(PurePosixPath(key).stem, []).append(key)
    for alike in by_stem.values():
        found: dict[Hashable, str] = {}
        for key in alike if len(alike) > 1 else ():
            other = found.setdefault(place(key), key)
            if other != key and place(key) is not None:
                raise InputError(
                    f"{other} and {key} would both take {what} {place(key)}: give each its own, in"
                    " folders as the images have them"
                )
