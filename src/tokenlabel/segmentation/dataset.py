"""Batches of images and labels for training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tokenlabel.data.loader import BatchMaker, Loader
from tokenlabel.data.order import BatchOrder, Request
from tokenlabel.errors import InputError
from tokenlabel.segmentation.augment import PairAugmentation
from tokenlabel.segmentation.files import read_pair
from tokenlabel.segmentation.pairs import Pairs

__all__ = ["PairBatch", "pair_loader"]


@dataclass(frozen=True)
class PairBatch:
    """Images as bytes with the label of every pixel."""

    images: Tensor  # [B, 3, H, W] uint8, channels last in memory
    labels: Tensor  # [B, H, W] int16: classes from 0, `IGNORED` where there is none
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return self.images.shape[0]

    def first(self, count: int) -> PairBatch:
        """The first `count` pairs."""
        return PairBatch(self.images[:count], self.labels[:count], self.keys[:count])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PairBatch:
        return PairBatch(
            self.images.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
            self.keys,
        )

    def pin_memory(self) -> PairBatch:
        return PairBatch(self.images.pin_memory(), self.labels.pin_memory(), self.keys)


def pair_loader(
    pairs: Pairs,
    augmentation: PairAugmentation,
    *,
    batch_size: int,
    seed: int = 0,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Loader[PairBatch]:
    """Shuffled, augmented batches of `batch_size` pairs a rank.

    What a batch holds depends on (seed, epoch, step, rank) and on nothing else. Raises InputError
    where the pairs are fewer than one step of all ranks takes.
    """
    if len(pairs) < batch_size * world:
        raise InputError(
            f"{len(pairs)} images are fewer than one batch of {batch_size * world}:"
            " choose a smaller batch size"
        )
    order = BatchOrder(np.arange(len(pairs)), batch_size, seed=seed, rank=rank, world=world)
    return Loader(_Samples(pairs, augmentation, seed), order, workers, pin_memory)


@dataclass(frozen=True)
class _Samples(BatchMaker[PairBatch]):
    pairs: Pairs
    augmentation: PairAugmentation
    seed: int

    def make(self, requests: list[Request]) -> PairBatch:
        items = [self.pairs.items[request.image] for request in requests]
        images, labels = [], []
        for item, request in zip(items, requests, strict=True):
            rng = np.random.default_rng((self.seed, request.epoch, request.image))
            sample = self.augmentation(*read_pair(item, self.pairs.classes, self.pairs.rules), rng)
            images.append(torch.from_numpy(sample[0]))
            labels.append(torch.from_numpy(sample[1]))
        return PairBatch(
            images=torch.stack(images).permute(0, 3, 1, 2),
            labels=torch.stack(labels),
            keys=tuple(item.key for item in items),
        )
