"""Checking, joining and comparing label stores."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tokenlabel.errors import InputError
from tokenlabel.labels.label_map import LabelMap
from tokenlabel.labels.store import LabelStore
from tokenlabel.labels.writer import LabelStoreWriter

__all__ = ["Difference", "diff", "merge", "verify"]


def verify(store: LabelStore) -> list[str]:
    """Read every byte and every label; what is wrong, one line each (empty: all is well)."""
    damage = []
    for shard in store.manifest.shards:
        path = Path(store.location) / shard.file
        if "://" in store.location:
            continue  # fetching compares the checksum
        if not path.exists():
            damage.append(f"{shard.file} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != shard.sha256:
            damage.append(f"{shard.file}: its checksum does not match the manifest")
    for key in store:
        try:
            store[key]
        except InputError as error:
            damage.append(str(error))
    return damage


def merge(stores: Sequence[LabelStore], output: Path) -> int:
    """Join stores of one class list and codec, in the order given; returns the number of labels.

    Records are copied as they are. Raises InputError where stores do not fit or share a key.
    """
    first = stores[0]
    for other in stores[1:]:
        for name in ("num_classes", "class_names", "codec"):
            here, there = getattr(first.manifest, name), getattr(other.manifest, name)
            if here != there:
                raise InputError(
                    f"{first.location} and {other.location} differ in {name}: {_short(here)}"
                    f" and {_short(there)}"
                )
    for number, store in enumerate(stores):
        for other in stores[number + 1 :]:
            if (key := next((key for key in other if key in store), None)) is not None:
                raise InputError(f"{store.location} and {other.location} both label {key!r}")
    with LabelStoreWriter(
        output,
        num_classes=first.num_classes,
        class_names=first.manifest.class_names,
        codec=first.manifest.codec,
        shard_size=first.manifest.shard_size,
        dataset={"merged": [store.manifest.dataset for store in stores]},
        annotator={"merged": [store.manifest.annotator for store in stores]},
    ) as writer:
        for store in stores:
            for key in store:
                writer.add_payload(key, store.payload(key))
    return sum(map(len, stores))


@dataclass(frozen=True)
class Difference:
    """How two stores of one data set disagree."""

    only_first: int
    only_second: int
    compared: int
    identical: int
    top1_agreement: float  # share of cells with the same best class
    total_variation: float  # mean over cells, in [0, 1]


def diff(first: LabelStore, second: LabelStore, *, sample: int | None = None) -> Difference:
    """Compare the labels of the keys that both have, or of a `sample` of them.

    Maps of different grids count as different and do not enter the means.
    """
    shared = [key for key in first if key in second]
    chosen = shared
    if sample is not None and sample < len(shared):
        chosen = random.Random(0).sample(shared, sample)
    identical = 0
    agreement, variation = [], []
    for key in chosen:
        a, b = first[key], second[key]
        if a.grid != b.grid:
            continue
        distance = _total_variation(a, b)
        same = a.classes[0] == b.classes[0]
        identical += bool(distance.max() == 0)
        agreement.append(float(same.float().mean()))
        variation.append(float(distance.mean()))
    return Difference(
        len(first) - len(shared),
        len(second) - len(shared),
        len(chosen),
        identical,
        float(np.mean(agreement)) if agreement else 0.0,
        float(np.mean(variation)) if variation else 1.0,
    )


def _total_variation(a: LabelMap, b: LabelMap) -> torch.Tensor:
    """Of each cell [H, W], over the named classes; the mass outside counts as one class."""
    classes = torch.cat([a.classes, b.classes]).flatten(1)
    palette, slots = torch.unique(classes, return_inverse=True)
    p, q = a.probabilities().flatten(1), b.probabilities().flatten(1)
    mass = torch.zeros(len(palette) + 1, classes.shape[1])
    mass[:-1].scatter_add_(0, slots, torch.cat([p, -q]))
    mass[-1] = q.sum(0) - p.sum(0)
    return (mass.abs().sum(0) / 2).reshape(a.grid)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:40] + "..."
