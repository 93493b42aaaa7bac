"""`average`: one store of the mean of several annotators' labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from tokenlabel.errors import InputError
from tokenlabel.labels.label_map import LabelMap
from tokenlabel.labels.maintain import coarse_planes, require_same
from tokenlabel.labels.store import LabelStore
from tokenlabel.labels.writer import LabelStoreWriter

__all__ = ["average", "mean_map"]


def average(
    stores: Sequence[LabelStore],
    output: Path,
    *,
    top_k: int | None = None,
    overwrite: bool = False,
) -> int:
    """Write the mean probabilities of stores of one class list (or vocabulary) and one data set.

    Maps of unequal grids are averaged on the coarser one; `top_k` classes of each cell are kept, by
    default as many as the stores keep. Images that not all stores label are left out. Returns the
    number of labels. Raises InputError where stores do not fit, or label no image together.
    """
    if len(stores) < 2:
        raise InputError("name at least two label stores to average")
    first, *others = stores
    require_same(stores, "num_classes", "class_names", "orientation")
    if not any(all(key in other for other in others) for key in first):
        raise InputError(f"{first.location} and {others[0].location} label no image together")
    written = 0
    with LabelStoreWriter(
        output,
        num_classes=first.num_classes,
        class_names=first.manifest.class_names,
        codec=first.manifest.codec,
        shard_size=first.manifest.shard_size,
        dataset=first.manifest.dataset,
        annotator={"averaged": [store.manifest.annotator for store in stores], "top_k": top_k},
        vocabulary=first.vocabulary,
        overwrite=overwrite,
    ) as writer:
        for key in _all_keys(stores):
            absent = next((store.location for store in stores if key not in store), None)
            if absent is not None:
                writer.leave_out(key, f"{absent} has no label of it")
                continue
            try:
                writer.add(key, mean_map([store[key] for store in stores], top_k))
            except ValueError as error:
                raise InputError(f"the labels of {key!r} cannot be averaged: {error}") from None
            written += 1
    return written


def _all_keys(stores: Sequence[LabelStore]) -> Iterator[str]:
    """Those of the first store, then what each further one has besides."""
    for number, store in enumerate(stores):
        yield from (key for key in store if not any(key in before for before in stores[:number]))


def mean_map(maps: Sequence[LabelMap], top_k: int | None = None) -> LabelMap:
    """The mean of maps of one image, on the coarsest of their grids.

    A class outside a cell's K has its part of the mass outside them. Raises ValueError where the maps
    show different parts of the image.
    """
    first = maps[0]
    if any(label_map.extent != first.extent for label_map in maps):
        raise ValueError("they cover different parts of the image")
    grid = (min(m.grid[0] for m in maps), min(m.grid[1] for m in maps))
    palette = torch.unique(torch.cat([label_map.classes.flatten() for label_map in maps]))
    mean = torch.stack([coarse_planes(m, palette, grid, spread=True) for m in maps]).mean(0)
    best = mean.topk(min(top_k or max(m.k for m in maps), len(palette)), dim=0)
    return LabelMap(
        best.values.clamp(min=1e-12).log(),
        palette[best.indices],
        torch.zeros(grid),
        first.extent,
        first.num_classes,
    )
