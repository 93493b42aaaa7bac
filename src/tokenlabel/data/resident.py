"""Images and label maps that stay on the device: for a batch, nothing but its views goes there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenlabel.data.augment import Augmentation, Drawn
from tokenlabel.data.batch import Batch
from tokenlabel.data.order import Request
from tokenlabel.data.samples import BatchMaker, Samples, Targets, class_labels
from tokenlabel.errors import InputError
from tokenlabel.geometry import View
from tokenlabel.geometry.render import Interpolation
from tokenlabel.geometry.render_batch import render_batch
from tokenlabel.labels import LabelMap

__all__ = ["DrawnBatch", "ResidentSamples"]


class SentBatch(NamedTuple):
    """A `DrawnBatch` on its way from a worker: numbers alone, for to unpickle a batch of objects takes
    longer than to draw it."""

    images: NDArray[np.int64]  # [B]
    stages: NDArray[np.float64]  # [B, 6]: the views
    interpolation: NDArray[np.str_]  # [B]
    labels: NDArray[Any]


@dataclass(frozen=True)
class DrawnBatch:
    """What is drawn for a batch; `to` makes its pixels and targets on the device."""

    of: ResidentSamples
    images: Tensor  # [B] int64: indices in the source
    drawn: tuple[Drawn, ...]
    labels: Tensor  # as in `Batch`

    @property
    def keys(self) -> tuple[str, ...]:
        known = self.of.samples.source.keys
        return tuple(known[index] for index in self.images.tolist())

    def __len__(self) -> int:
        return len(self.drawn)

    def __reduce__(self) -> tuple[type[SentBatch], SentBatch]:
        return SentBatch, SentBatch(
            self.images.numpy(),
            np.array([one.view.stages[0] for one in self.drawn]),
            np.array([one.interpolation for one in self.drawn]),
            self.labels.numpy(),
        )

    def first(self, count: int) -> DrawnBatch:
        """The first `count` samples."""
        return DrawnBatch(self.of, self.images[:count], self.drawn[:count], self.labels[:count])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return self.of.batch(self, torch.device(device), non_blocking)


class ResidentSamples(BatchMaker[DrawnBatch]):
    """Draws the samples that `samples` would make. All images and label maps are kept on the device
    that asks for the first batch, images as they are decoded and scores in float32.

    Raises InputError for images of different sizes, and for augmentation other than crops and flips.
    """

    def __init__(self, samples: Samples) -> None:
        transform, decoded = samples.transform, samples.decoded
        assert isinstance(transform, Augmentation)
        assert decoded is not None
        if not transform.crops_and_flips:
            raise InputError(
                "data.cache=device makes views by crops and flips only: use data.cache=ram, or leave"
                " out augment.policy, color_jitter and erasing"
            )
        sizes = {decoded.size(index) for index in range(len(decoded))}
        if len(sizes) > 1:
            raise InputError(
                f"data.cache=device needs images of one size, these have {len(sizes)}:"
                " use data.cache=ram, or make them alike with `tokenlabel pack`"
            )
        (self._size,) = sizes
        self.samples, self._decoded = samples, decoded
        self._images = torch.empty(0)
        self._place: torch.device | None = None  # as it was asked for: "mps" of a tensor on "mps:0"
        self._maps: list[dict[str, LabelMap]] = []  # of each of the targets, by key

    def make(self, requests: list[Request]) -> DrawnBatch:
        source = self.samples.source
        indices = [request.image for request in requests]
        return DrawnBatch(
            of=self,
            images=torch.tensor(indices),
            drawn=tuple(self.samples.drawn(request, self._size) for request in requests),
            labels=class_labels(source, indices),
        )

    def received(self, batch: DrawnBatch | SentBatch) -> DrawnBatch:
        if isinstance(batch, DrawnBatch):
            return batch
        kinds: list[Interpolation] = batch.interpolation.tolist()
        views = [View((tuple(stage),)) for stage in batch.stages.tolist()]
        return DrawnBatch(
            of=self,
            images=torch.from_numpy(batch.images),
            drawn=tuple(map(Drawn, views, kinds)),
            labels=torch.from_numpy(batch.labels),
        )

    @torch.no_grad()
    def batch(self, drawn: DrawnBatch, device: torch.device, non_blocking: bool) -> Batch:
        """The pixels and targets of what was drawn."""
        if self._place != device:
            self._move(device)
        pixels = render_batch(
            self._images[drawn.images.to(device, non_blocking=non_blocking)],
            [one.view for one in drawn.drawn],
            self.samples.size,
            [one.interpolation for one in drawn.drawn],
        )
        keys = drawn.keys
        made = [
            targets.of([maps[key] for key in keys], drawn.drawn)
            for targets, maps in zip(self._wanted, self._maps, strict=True)
        ]
        return Batch(
            images=pixels.contiguous(memory_format=torch.channels_last),
            labels=drawn.labels.to(device, non_blocking=non_blocking),
            target=made[0] if made else None,
            keys=keys,
            more=tuple(made[1:]),
        )

    @property
    def _wanted(self) -> Sequence[Targets]:
        first = self.samples.targets
        return () if first is None else (first, *self.samples.more)

    def _move(self, device: torch.device) -> None:
        """Take all images and label maps to the device."""
        pixels = np.stack([self._decoded.pixels(index) for index in range(len(self._decoded))])
        self._images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).contiguous()
        self._maps = [_on(device, targets, self.samples) for targets in self._wanted]
        self._place = device


def _on(device: torch.device, targets: Targets, samples: Samples) -> dict[str, LabelMap]:
    """The label maps of all images that have one, moved in one piece where they are of one form."""
    keys = [key for key in samples.source.keys if key in targets.labels]
    maps = [targets.labels[key] for key in keys]
    moved: dict[str, LabelMap] = {}
    forms = {(one.scores.shape, one.log_normalizer is None) for one in maps}
    for form in forms:
        alike = [
            i for i, m in enumerate(maps) if (m.scores.shape, m.log_normalizer is None) == form
        ]
        scores = torch.stack([maps[i].scores.float() for i in alike]).to(device)
        classes = torch.stack([maps[i].classes for i in alike]).to(device)
        known = [m for i in alike if (m := maps[i].log_normalizer) is not None]
        normalizers = torch.stack(known).float().to(device) if known else None
        for place, i in enumerate(alike):
            moved[keys[i]] = replace(
                maps[i],
                scores=scores[place],
                classes=classes[place],
                log_normalizer=None if normalizers is None else normalizers[place],
            )
    return moved
