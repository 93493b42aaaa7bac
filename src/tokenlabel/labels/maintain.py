"""Checking, joining and comparing label stores."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenlabel.errors import InputError
from tokenlabel.files import inside, sha256_of
from tokenlabel.labels.index import FILE_NAME as INDEX_FILE
from tokenlabel.labels.label_map import LabelMap
from tokenlabel.labels.manifest import Manifest
from tokenlabel.labels.shard import ShardWriter, shard_name
from tokenlabel.labels.store import LabelStore
from tokenlabel.labels.writer import begin, complete

__all__ = ["Difference", "coarse_planes", "diff", "merge", "require_same", "verify"]


def verify(store: LabelStore) -> list[str]:
    """Read every byte and every label; what is wrong, one line each (empty: all is well)."""
    damage = []
    try:
        store.vocabulary  # noqa: B018
    except InputError as error:
        damage.append(str(error))
    files = [(shard.file, shard.sha256) for shard in store.manifest.shards]
    for name, sha256 in [(INDEX_FILE, store.manifest.index_sha256), *files]:
        path = inside(Path(store.location), name, links=True)
        if "://" in store.location:
            continue  # fetching compares the checksum
        if not path.exists():
            damage.append(f"{name} is missing")
        elif sha256_of(path) != sha256:
            damage.append(f"{name}: its checksum does not match the manifest")
    for key in store:
        try:
            store[key]
        except InputError as error:
            damage.append(str(error))
    return damage


def merge(stores: Sequence[LabelStore], output: Path, *, overwrite: bool = False) -> int:
    """Join stores of one class list and codec, in the order given; returns the number of labels.

    Records are copied as they are, those of left-out images too. One store alone becomes one of the
    present format. A merge that was interrupted goes on; it takes the memory of one shard. Raises
    InputError where stores do not fit or share a key.
    """
    first = stores[0]
    require_same(stores, "num_classes", "class_names", "codec", "orientation")
    for number, store in enumerate(stores):
        for other in stores[number + 1 :]:
            if (key := next((key for key in other if key in store), None)) is not None:
                raise InputError(f"{store.location} and {other.location} both label {key!r}")
    size = first.manifest.shard_size
    dataset = _joined([store.manifest.dataset for store in stores])
    if first.manifest.orientation == "apply":  # also where stores decoded otherwise unlike
        dataset = {"decode": {"orientation": "apply"}, **dataset}
    settings = Manifest(
        num_classes=first.num_classes,
        class_names=first.manifest.class_names,
        codec=first.manifest.codec,
        shard_size=size,
        dataset=dataset,
        annotator=_joined([store.manifest.annotator for store in stores]),
        vocabulary_sha256=first.manifest.vocabulary_sha256,
    )
    begin(output, settings, overwrite=overwrite)
    if first.vocabulary is not None:
        first.vocabulary.save(output)
    total = sum(len(store) + len(store.manifest.left_out) for store in stores)
    shards = max(math.ceil(total / size), 1)
    records = _records(stores)
    for number in range(shards):
        part = islice(records, size)
        shard = ShardWriter.claim(output / shard_name(number))
        try:
            for place, (store, key, reason) in enumerate(part):
                if shard is None or place < len(shard.keys):
                    continue
                if reason is None:
                    shard.append(key, store.payload(key))
                else:
                    shard.append(key, reason.encode(), "left out")
            if shard is not None:
                shard.finish()
        finally:
            if shard is not None:
                shard.release()
    if complete(output, shards) is None:
        raise InputError(f"another process is writing {output}: wait for it, and run this again")
    return sum(map(len, stores))


def _records(stores: Sequence[LabelStore]) -> Iterator[tuple[LabelStore, str, str | None]]:
    """Store and key of each label, and of each left-out image, with its reason, behind its store's."""
    for store in stores:
        yield from ((store, key, None) for key in store)
        for missing in store.manifest.left_out:
            if not any(missing.key in other for other in stores):
                yield store, missing.key, missing.reason


def _joined(descriptions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all stores say alike, and, where they differ, what each says."""
    first = descriptions[0]
    if all(other == first for other in descriptions):
        return first
    alike = {k: v for k, v in first.items() if all(other.get(k) == v for other in descriptions)}
    return {**alike, "merged": list(descriptions)}


def require_same(stores: Sequence[LabelStore], *settings: str) -> None:
    """Raises InputError where the stores hold different words, or words and classes; else it names
    the first of `settings` in which they differ."""
    first, *others = stores
    for other in others:
        if first.manifest.vocabulary_sha256 != other.manifest.vocabulary_sha256:
            raise _other_words(first, other)
        for name in settings:
            here, there = getattr(first.manifest, name), getattr(other.manifest, name)
            if here != there:
                raise InputError(
                    f"{first.location} and {other.location} differ in {name}: {_short(here)}"
                    f" and {_short(there)}"
                )


def _other_words(first: LabelStore, second: LabelStore) -> InputError:
    if first.manifest.words and second.manifest.words:
        return InputError(
            f"{first.location} and {second.location} hold words of different vocabularies: label the"
            f" images of one with the words of the other (annotate words --vocabulary"
            f" {first.location})"
        )
    words, classes = (first, second) if first.manifest.words else (second, first)
    return InputError(
        f"{words.location} holds visual words, {classes.location} classes: give stores of one kind"
        " (`train --labels` takes both)"
    )


@dataclass(frozen=True)
class Difference:
    """How two stores of one data set disagree."""

    only_first: int
    only_second: int
    compared: int
    identical: int
    resampled: int  # of those compared, maps of unequal grids
    incomparable: int  # maps that cover unequal parts of the image
    top1_agreement: float | None  # share of cells with the same best class; None: none compared
    total_variation: float | None  # mean over cells, in [0, 1]


def diff(first: LabelStore, second: LabelStore, *, sample: int | None = None) -> Difference:
    """Compare the labels of the keys that both have, or of a `sample` of them.

    Maps of unequal grids are averaged to the coarser one. Raises InputError where the stores have
    different classes, or words of different vocabularies.
    """
    known = None not in (first.manifest.class_names, second.manifest.class_names)
    names = ("class_names",) if known else ()
    require_same([first, second], "num_classes", *names)
    shared = [key for key in first if key in second]
    chosen = shared
    if sample is not None and sample < len(shared):
        chosen = random.Random(0).sample(shared, sample)
    identical = resampled = incomparable = 0
    agreement, variation = [], []
    for key in chosen:
        a, b = first[key], second[key]
        if a.extent != b.extent:
            incomparable += 1
            continue
        same, distance = _difference(a, b)
        resampled += a.grid != b.grid
        identical += a.grid == b.grid and bool(distance.max() == 0)
        agreement.append(float(same.float().mean()))
        variation.append(float(distance.mean()))
    return Difference(
        only_first=len(first) - len(shared),
        only_second=len(second) - len(shared),
        compared=len(chosen) - incomparable,
        identical=identical,
        resampled=resampled,
        incomparable=incomparable,
        top1_agreement=float(np.mean(agreement)) if agreement else None,
        total_variation=float(np.mean(variation)) if variation else None,
    )


def _difference(a: LabelMap, b: LabelMap) -> tuple[Tensor, Tensor]:
    """Same best class, and total variation, of each cell of the coarser grid.

    The mass outside the named classes counts as one class.
    """
    grid = (min(a.grid[0], b.grid[0]), min(a.grid[1], b.grid[1]))
    palette = torch.unique(torch.cat([a.classes.flatten(), b.classes.flatten()]))
    p, q = (coarse_planes(label, palette, grid) for label in (a, b))
    distance = ((p - q).abs().sum(0) + (p.sum(0) - q.sum(0)).abs()) / 2
    if a.grid == b.grid:
        return a.classes[0] == b.classes[0], distance
    return p.argmax(0) == q.argmax(0), distance


def coarse_planes(
    label: LabelMap, palette: Tensor, grid: tuple[int, int], *, spread: bool = False
) -> Tensor:
    """Probabilities [P, h, w] of the palette's classes, averaged over the cells of a coarser grid.

    A class that is not among a cell's K has none or, with `spread`, its even part of the mass outside.
    """
    probability = label.probabilities()
    planes = torch.zeros(len(palette), *label.grid)
    if spread:
        outside = (1 - probability.sum(0)).clamp(min=0)
        planes += outside / max(label.num_classes - label.k, 1)
    planes.scatter_(0, torch.searchsorted(palette, label.classes), probability)
    # on a grid of its own size the pooling takes longer than all before
    return planes if label.grid == grid else F.adaptive_avg_pool2d(planes, grid)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:40] + "..."
