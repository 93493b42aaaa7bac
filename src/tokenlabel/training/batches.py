"""A loader's batches, as many together as an update accumulates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from tokenlabel.data.loader import Loader

__all__ = ["LoaderBatches"]

B = TypeVar("B")


class LoaderBatches(Generic[B]):
    """`passes` batches of `loader` make an update."""

    def __init__(self, loader: Loader[B], passes: int) -> None:
        self.loader, self.passes = loader, passes
        self.updates_per_epoch = len(loader) // passes

    def epoch(self, epoch: int, start: int) -> Iterator[list[B]]:
        """The batches of each update of an epoch from update `start` on, one list an update."""
        batches = self.loader.epoch(epoch, start * self.passes)
        for _ in range(start, self.updates_per_epoch):
            yield [next(batches) for _ in range(self.passes)]
