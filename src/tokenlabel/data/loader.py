"""Loaders: batches of a source, in an order and with an augmentation that no worker count changes."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from tokenlabel.choices import Cache
from tokenlabel.data.augment import Augmentation, Drawn
from tokenlabel.data.batch import Batch
from tokenlabel.data.cache import DecodedImages, decoded_images, may_be_reduced
from tokenlabel.data.decode import decode_image, image_size
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.matching import labeled_samples
from tokenlabel.data.order import BatchOrder, Request
from tokenlabel.data.source import UNLABELED, ImageSource
from tokenlabel.errors import InputError
from tokenlabel.geometry import View, coverage
from tokenlabel.geometry.render import Pixels
from tokenlabel.labels import LabelStore, TargetKind, token_targets
from tokenlabel.targets import TokenTarget

__all__ = [
    "BatchMaker",
    "Loader",
    "Samples",
    "Targets",
    "class_labels",
    "eval_loader",
    "pixels_needed",
    "train_loader",
]

_DECODED_SCALE = 1.25  # least pixels of a reduced image to an output pixel, as `render` warps them
_WATCHED = 1.0  # s between two looks of a worker at whether its run is there
_MAX_ERASED = 0.5  # tokens of which more is erased carry no loss, where that is asked for


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Which token targets to make of which label maps (see `tokenlabel.token_targets`)."""

    labels: LabelStore
    grid: tuple[int, int]  # tokens of the student, (h, w)
    kind: TargetKind = "probability"
    smoothing: float = 0.1
    erased_tokens_train: bool = True  # whether tokens under erased boxes keep their target

    def make(self, keys: Sequence[str], drawn: Sequence[Drawn]) -> TokenTarget:
        maps = [self.labels[key] for key in keys]
        views = [sample.view for sample in drawn]
        target = token_targets(maps, views, self.grid, self.kind, self.smoothing)
        if self.erased_tokens_train or not any(sample.erased for sample in drawn):
            return target
        visible = torch.stack([self._visible(sample) for sample in drawn])
        return replace(target, mask=target.mask & visible)

    def _visible(self, drawn: Drawn) -> Tensor:
        """Which of the class token (always) and the tokens the erased boxes leave: [T] bool."""
        erased = torch.zeros(self.grid)
        for box in drawn.erased:
            erased += coverage(View.identity(), self.grid, box)
        return torch.cat([torch.ones(1, dtype=torch.bool), (erased <= _MAX_ERASED).flatten()])


B = TypeVar("B")


class BatchMaker(Dataset[Any], Generic[B]):
    """Makes whole batches of requests, one worker a batch."""

    def __getitems__(self, requests: list[Request]) -> B | InputError:
        try:
            return self.make(requests)
        except InputError as error:  # a worker's exception would arrive wrapped in its traceback
            return error

    def make(self, requests: list[Request]) -> B:
        raise NotImplementedError


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
            yield batch


def train_loader(
    source: ImageSource,
    augmentation: Augmentation,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    targets: Targets | None = None,
    more: Sequence[Targets] = (),
    labels: LabelStore | None = None,
    clean: bool = False,
    seed: int = 0,
    repeats: int = 1,
    cache: Cache = "none",
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Loader[Batch]:
    """Shuffled, augmented batches of `batch_size` images of `image_size` = (height, width) a rank.

    What a batch holds depends on (seed, epoch, step, rank) and on nothing else. `repeats` is how
    often an image appears in a row, augmented anew (repeated augmentation). Images that the annotator
    of `labels` (or of the targets' store) left out are left out. `more` are the targets of further
    annotators; `clean` adds what an annotator is to
    see of each view. `cache` keeps decoded images and never changes a batch. Raises InputError where
    images lack labels, or are fewer than one step of all ranks takes.
    """
    store = targets.labels if targets else labels
    samples = np.arange(len(source)) if store is None else labeled_samples(source, store)
    for other in more:
        samples = np.intersect1d(samples, labeled_samples(source, other.labels))
    if len(samples) < batch_size * world:
        raise InputError(
            f"{len(samples)} images are fewer than one batch of {batch_size * world}:"
            " choose a smaller batch size"
        )
    order = BatchOrder(samples, batch_size, seed=seed, repeats=repeats, rank=rank, world=world)
    decoded = decoded_images(source, cache, fast=not augmentation.exact_pixels)
    made = Samples(
        source, augmentation, image_size, targets, seed, clean, decoded, more=tuple(more)
    )
    return Loader(made, order, workers, pin_memory)


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


@dataclass(frozen=True)
class Samples(BatchMaker[Batch]):
    """Makes batches in the memory that is handed over."""

    source: ImageSource
    transform: Augmentation | Preprocessing
    size: tuple[int, int]
    targets: Targets | None
    seed: int
    clean: bool = False
    decoded: DecodedImages | None = None
    more: tuple[Targets, ...] = ()

    def make(self, requests: list[Request]) -> Batch:
        shape = (len(requests), *self.size, 3)
        images = _shared(torch.empty(shape, dtype=torch.uint8))
        clean = _shared(torch.empty(shape, dtype=torch.uint8)) if self.clean else None
        drawn = [
            self._sample(request, data, images[i], None if clean is None else clean[i])
            for i, (request, data) in enumerate(zip(requests, self._files(requests), strict=True))
        ]
        keys = tuple(self.source.keys[request.image] for request in requests)
        return Batch(
            images=images.permute(0, 3, 1, 2),
            labels=class_labels(self.source, [request.image for request in requests]),
            target=self.targets.make(keys, drawn) if self.targets else None,
            keys=keys,
            clean=None if clean is None else clean.permute(0, 3, 1, 2),
            more=tuple(targets.make(keys, drawn) for targets in self.more),
        )

    def _files(self, requests: list[Request]) -> Iterable[bytes | None]:
        """The encoded images, or None of those that are kept decoded."""
        if self.decoded is not None:
            return [None] * len(requests)
        return self.source.read_many([request.image for request in requests])

    def draw(self, request: Request, data: bytes | None = None) -> tuple[Drawn, Pixels]:
        """What happens to an image, and the image, as large as that needs; `data` is its file."""
        index, rules = request.image, self.source.rules
        name = self.source.keys[index]
        if self.decoded is None:
            data = self.source.read(index) if data is None else data
            size = image_size(data, name, rules)
        else:
            size = self.decoded.size(index)
        rng = np.random.default_rng((self.seed, request.epoch, index, request.repeat))
        drawn = self.transform.draw(size, self.size, rng)
        exact = self.transform.exact_pixels
        needed = (0, 0) if exact else pixels_needed(drawn.view, self.size)
        if self.decoded is not None and not may_be_reduced(size, needed):
            return drawn, self.decoded.pixels(index)
        data = self.source.read(index) if data is None else data
        image = decode_image(data, name, rules, fast=not exact, at_least=needed)
        return drawn, image

    def _sample(
        self, request: Request, data: bytes | None, slot: Tensor, clean: Tensor | None
    ) -> Drawn:
        """Make one sample's pixels in `slot` [H, W, 3], and in `clean` those of its view alone."""
        drawn, image = self.draw(request, data)
        slot.numpy()[:] = self.transform.apply(drawn, image, self.size)
        if clean is not None:
            plain = replace(drawn, operations=(), erased=())
            clean.numpy()[:] = self.transform.apply(plain, image, self.size)
        return drawn


def class_labels(source: ImageSource, indices: Sequence[int]) -> Tensor:
    """Class ids [B] of images; [B, M] padded with -1 where an image may have several."""
    if source.several is None:
        return torch.tensor([int(source.labels[i]) for i in indices])
    most = max(map(len, source.several))
    rows = [source.several[i] for i in indices]
    return torch.tensor([[*row, *[UNLABELED] * (most - len(row))] for row in rows])


def _shared(tensor: Tensor) -> Tensor:
    """In a worker: memory of the training process, so that nothing is copied on the way."""
    if get_worker_info() is not None:
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    return tensor


def pixels_needed(view: View, size: tuple[int, int]) -> tuple[int, int]:
    """The least (height, width) at which the source can be decoded without loss to the view."""
    a, b, _, d, e, _ = view.stages[0]
    x, y = math.hypot(a / size[1], b / size[0]), math.hypot(d / size[1], e / size[0])
    return math.ceil(_DECODED_SCALE / y), math.ceil(_DECODED_SCALE / x)


def _as_it_is(batch: Any) -> Any:
    return batch
