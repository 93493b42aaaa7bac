"""Loaders: batches of a source, in an order and with an augmentation that no worker count changes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader

from tokenlabel.choices import Cache
from tokenlabel.data.augment import Augmentation
from tokenlabel.data.batch import Batch
from tokenlabel.data.cache import decoded_images
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.matching import labeled_samples
from tokenlabel.data.order import BatchOrder
from tokenlabel.data.resident import ResidentSamples
from tokenlabel.data.samples import BatchMaker, Samples, Targets
from tokenlabel.data.source import ImageSource, Subset
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore

__all__ = ["Loader", "eval_loader", "loader_workers", "train_loader"]

_WATCHED = 1.0  # s between two looks of a worker at whether its run is there


B = TypeVar("B")


def loader_workers(wanted: int) -> int:
    """No more than there are processors for: more only get into each other's way."""
    return min(wanted, os.cpu_count() or 1)


def _on_its_own(_worker: int) -> None:
    """Signals to a run are for its main process, which saves and then ends its workers.

    Ctrl-C and a scheduler's signal reach the whole process group: workers that end there would stop
    the update under way, and nothing would be saved.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):  # not on Windows
        os.setpgid(0, 0)
    threading.Thread(target=_end_with_the_run, args=(os.getppid(),), daemon=True).start()


def _end_with_the_run(parent: int) -> None:
    """End this worker where its run was killed: it holds the run's lock, and its memory.

    Torch's own watch is slower, waits for a batch that is being made, and sees nothing where workers
    are children of a server (Python's start method "forkserver").
    """
    run = multiprocessing.parent_process()
    while os.getppid() == parent and (run is None or run.is_alive()):
        time.sleep(_WATCHED)
    os._exit(1)


class Loader(Generic[B]):
    """Iterates over batches. An error of a sample reaches the caller as it is, workers or not."""

    def __init__(self, samples: BatchMaker[B], order: BatchOrder, workers: int, pin: bool) -> None:
        self.samples, self.order = samples, order
        self._batches: DataLoader[B | InputError] = DataLoader(
            samples,
            batch_sampler=order,
            num_workers=loader_workers(workers),
            worker_init_fn=_on_its_own,
            collate_fn=_as_it_is,
            pin_memory=pin,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # its own: it must not advance that of the training
        )

    def __len__(self) -> int:
        """Steps of a whole epoch."""
        return len(self.order)

    def __iter__(self) -> Iterator[B]:
        return self.epoch(0)

    def epoch(self, number: int, start: int = 0) -> Iterator[B]:
        """The batches of epoch `number` from step `start` on, as if those before had been drawn."""
        self.order.epoch, self.order.start = number, start
        for batch in self._batches:
            if isinstance(batch, InputError):
                raise batch
            yield self.samples.received(batch)


def train_loader(
    source: ImageSource,
    augmentation: Augmentation,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    targets: Targets | None = None,
    more: Sequence[Targets] = (),
    labels: Sequence[LabelStore] = (),
    clean: bool = False,
    seed: int = 0,
    repeats: int = 1,
    cache: Cache = "none",
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Loader[Any]:
    """Shuffled, augmented batches of `batch_size` images of `image_size` = (height, width) a rank.

    What a batch holds depends on (seed, epoch, step, rank) and on nothing else. `repeats` is how
    often an image appears in a row, augmented anew (repeated augmentation). `more` are the targets of
    further annotators. Images that an annotator of the targets or of `labels` left out are left out.
    `clean` adds what an annotator is to see of each view. `cache` keeps decoded images and does not
    change what a batch holds; with "device" images and label maps stay where the model is, and pixels
    are the same to within two gray levels.
    Raises InputError where images lack labels, or are fewer than one step of all ranks takes.
    """
    wanted = () if targets is None else (targets, *more)
    samples = labeled_samples(source, *dict.fromkeys((*(t.labels for t in wanted), *labels)))
    if len(samples) < batch_size * world:
        raise InputError(
            f"{len(samples)} images are fewer than one batch of {batch_size * world}:"
            " choose a smaller batch size"
        )
    if len(samples) < len(source):  # what is left out need not even be an image
        source = Subset.of(source, samples)
    order = BatchOrder(
        np.arange(len(source)), batch_size, seed=seed, repeats=repeats, rank=rank, world=world
    )
    decoded = decoded_images(source, cache, fast=not augmentation.exact_pixels)
    made = Samples(
        source, augmentation, image_size, targets, seed, clean, decoded, more=tuple(more)
    )
    maker: BatchMaker[Any] = ResidentSamples(made) if cache == "device" else made
    return Loader(maker, order, workers, pin_memory)


def eval_loader(
    source: ImageSource,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    cache: Cache = "none",
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Loader[Batch]:
    """Every image once, in order, as `preprocessing` shows it; ranks take turns by batch."""
    order = BatchOrder(np.arange(len(source)), batch_size, rank=rank, world=world)
    decoded = decoded_images(source, cache, fast=not preprocessing.exact_pixels)
    samples = Samples(source, preprocessing, preprocessing.image_size, None, 0, decoded=decoded)
    return Loader(samples, order, workers, pin_memory)


def _as_it_is(batch: Any) -> Any:
    return batch
