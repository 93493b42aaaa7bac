"""Batches of images and labels for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tokenlabel.data.matching import check_orientation
from tokenlabel.data.order import Request
from tokenlabel.data.samples import BatchMaker
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore
from tokenlabel.segmentation.augment import PairAugmentation
from tokenlabel.segmentation.classes import IGNORED
from tokenlabel.segmentation.files import read_image, read_pair
from tokenlabel.segmentation.pairs import Pair, Pairs

__all__ = ["PairBatch", "Sample", "Samples", "SoftScenes", "shown_with_masks", "soft_scenes"]


@dataclass(frozen=True)
class PairBatch:
    """Images from 0 to 255 with the label of every pixel, or with soft labels of their cells."""

    images: Tensor
    """[B, C, H, W] from 0 to 255, channels last in memory: uint8, or float32 of images of more than
    8 bits. Empty beside `features`."""
    labels: Tensor  # [B, H, W] int16: classes from 0, `IGNORED` where there is none
    keys: tuple[str, ...]
    soft: Tensor | None = None  # [B, C, h, w] probabilities of equal cells; 0 where there are none
    features: tuple[Tensor, ...] = ()  # of a frozen backbone, [B, D, h, w] each, if they are known

    def __len__(self) -> int:
        return self.labels.shape[0]

    def first(self, count: int) -> PairBatch:
        """The first `count` scenes."""
        return replace(
            self,
            images=self.images[:count],
            labels=self.labels[:count],
            keys=self.keys[:count],
            soft=None if self.soft is None else self.soft[:count],
            features=tuple(x[:count] for x in self.features),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PairBatch:
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            labels=self.labels.to(device, non_blocking=non_blocking),
            soft=None if self.soft is None else self.soft.to(device, non_blocking=non_blocking),
            features=tuple(x.to(device, non_blocking=non_blocking) for x in self.features),
        )

    def pin_memory(self) -> PairBatch:
        return replace(
            self,
            images=self.images.pin_memory(),
            labels=self.labels.pin_memory(),
            soft=None if self.soft is None else self.soft.pin_memory(),
        )


@dataclass(frozen=True)
class SoftScenes:
    """Scenes without a mask that have a record in a label store."""

    scenes: tuple[Pair, ...]
    store: LabelStore
    threshold: float = 0.0  # cells whose best class is less probable have no target
    mask_repeats: int = 1  # how often a pass shows a scene with a mask, and these once


def soft_scenes(
    pairs: Pairs, store: LabelStore, threshold: float = 0.0, mask_repeats: int = 1
) -> SoftScenes:
    """The scenes of `pairs` that have no mask, but a label.

    Raises InputError where there is none, or the labels are of other classes or of turned images.
    """
    names = store.manifest.class_names
    if store.manifest.words:
        raise InputError(
            f"the labels in {store.location} are of words, not of the classes of the masks: label with"
            " a network trained on these masks"
        )
    if store.num_classes != len(pairs.classes) or names not in (None, pairs.classes.names):
        raise InputError(
            f"the labels in {store.location} are of {store.num_classes} classes, the masks of"
            f" {len(pairs.classes)}, or of other names: label with a network trained on these masks"
        )
    check_orientation(pairs.rules, store.manifest)
    found = tuple(pair for pair in pairs.unmasked if pair.key in store)
    if not found:
        first = next(iter(pairs.unmasked), None)
        raise InputError(
            f"none of {len(pairs.unmasked)} scenes without a mask has a label in {store.location}"
            + (f", such as {first.key}" if first else "")
            + ": label the folder of the training images, or leave the labels out"
        )
    return SoftScenes(found, store, threshold, mask_repeats)


def shown_with_masks(pairs: Pairs, soft: SoftScenes | None) -> int:
    """How many samples of a pass over the images have a mask."""
    return len(pairs) * (1 if soft is None else soft.mask_repeats)


class Sample(NamedTuple):
    """One view of a scene."""

    image: Tensor  # [H, W, C] from 0 to 255; of no pixels where its features are known
    labels: Tensor  # [H, W] int16
    soft: Tensor | None  # [C, h, w]


@dataclass(frozen=True)
class Samples(BatchMaker[PairBatch]):
    """Makes batches: scenes with masks first, as often as they are repeated, then those with soft
    labels.

    `views` limits how many views are drawn of a scene; they are shown in turn, epoch by epoch.
    """

    pairs: Pairs
    augmentation: PairAugmentation
    seed: int = 0
    views: int | None = None
    soft: SoftScenes | None = None

    def __len__(self) -> int:
        return self._masked + (0 if self.soft is None else len(self.soft.scenes))

    @property
    def _masked(self) -> int:
        return shown_with_masks(self.pairs, self.soft)

    def make(self, requests: list[Request]) -> PairBatch:
        return self.batch(requests, [self.sample(request) for request in requests])

    def batch(self, requests: Sequence[Request], samples: Sequence[Sample]) -> PairBatch:
        soft = [sample.soft for sample in samples]
        none = next((torch.zeros_like(x) for x in soft if x is not None), None)
        images = torch.stack([sample.image for sample in samples])
        return PairBatch(
            images=images.permute(0, 3, 1, 2) if images.ndim == 4 else images,
            labels=torch.stack([sample.labels for sample in samples]),
            keys=tuple(self._scene(request.image).key for request in requests),
            soft=None if none is None else torch.stack([none if x is None else x for x in soft]),
        )

    def sample(self, request: Request) -> Sample:
        """The view of a scene that an epoch shows."""
        rng = np.random.default_rng((self.seed, self.view(request), request.image))
        scene, rules = self._scene(request.image), self.pairs.rules
        if request.image < self._masked:
            pixels, labels = self.augmentation(*read_pair(scene, self.pairs.classes, rules), rng)
            return Sample(torch.from_numpy(pixels), torch.from_numpy(labels), None)
        assert self.soft is not None
        label_map = self.soft.store[scene.key]
        pixels, soft = self.augmentation.soft(read_image(scene.image, rules), label_map, rng)
        sure = soft.amax(0, keepdim=True) >= self.soft.threshold
        none = torch.full(pixels.shape[:2], IGNORED, dtype=torch.int16)
        return Sample(torch.from_numpy(pixels), none, soft * sure)

    def view(self, request: Request) -> int:
        """The number of the view that an epoch shows."""
        return request.epoch if self.views is None else request.epoch % self.views

    def _scene(self, number: int) -> Pair:
        if self.soft is None or number < self._masked:
            return self.pairs.items[number % len(self.pairs)]
        return self.soft.scenes[number - self._masked]
