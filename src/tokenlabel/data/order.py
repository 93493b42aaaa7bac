"""Which samples make up which batch: a pure function of (seed, epoch), shared out among ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

__all__ = ["BatchOrder", "Request"]

_APART = 16  # places between an image and its repetition: neighbors, who are mixed, must differ


class Request(NamedTuple):
    """One sample to make. Its augmentation is drawn from all of this and the seed."""

    image: int  # index in the source
    epoch: int
    repeat: int


class BatchOrder(Sampler[list[Request]]):
    """The batches of one of `world` ranks, from step `start` of epoch `epoch`: set these to move.

    Step s of rank r is slice `s * world + r` of the epoch's order. So any split of so many images
    among ranks, or among steps whose gradients are accumulated, sees the same samples.

    - with a `seed`: shuffled anew each epoch; the last images that fill no step of all ranks are left
      out. With `repeats` > 1 (repeated augmentation) an epoch holds each image of a share 1 / repeats
      of the data that many times, some places apart, so that an epoch is as long as without.
    - without: each sample once, in order; the last batch may be small, a rank's last step missing.
    """

    def __init__(
        self,
        samples: NDArray[np.int64],
        batch_size: int,
        *,
        seed: int | None = None,
        repeats: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.samples, self.batch_size, self.seed, self.repeats = samples, batch_size, seed, repeats
        self.rank, self.world = rank, world
        self.epoch = self.start = 0

    def __len__(self) -> int:
        """Steps of a whole epoch."""
        if self.seed is not None:
            return len(self.samples) // (self.batch_size * self.world)
        batches = -(-len(self.samples) // self.batch_size)
        return max(-(-(batches - self.rank) // self.world), 0)

    def __iter__(self) -> Iterator[list[Request]]:
        order = self._order()
        for step in range(self.start, len(self)):
            first = (step * self.world + self.rank) * self.batch_size
            places = range(first, min(first + self.batch_size, len(order)))
            yield [self._request(order, place) for place in places]

    def _request(self, order: NDArray[np.int64], place: int) -> Request:
        """Images come in groups of `_APART`, each group `repeats` times over."""
        group, within = divmod(place, _APART * self.repeats)
        index = self.samples[order[group * _APART + within % _APART]]
        return Request(int(index), self.epoch, within // _APART)

    def _order(self) -> NDArray[np.int64]:
        if self.seed is None:
            return np.arange(len(self.samples))
        return np.random.default_rng((self.seed, self.epoch)).permutation(len(self.samples))
