"""What is made of the requests of an order: samples of images, and the token targets of their views."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from tokenlabel.data.augment import Augmentation, Drawn
from tokenlabel.data.batch import Batch
from tokenlabel.data.cache import DecodedImages, may_be_reduced
from tokenlabel.data.decode import decode_image, image_size
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.order import Request
from tokenlabel.data.source import UNLABELED, ImageSource
from tokenlabel.errors import InputError
from tokenlabel.geometry import View, coverage
from tokenlabel.geometry.render import Pixels
from tokenlabel.labels import LabelMap, LabelStore, TargetKind, token_targets
from tokenlabel.targets import TokenTarget

__all__ = ["BatchMaker", "Samples", "Targets", "class_labels", "pixels_needed"]

_DECODED_SCALE = 1.25  # least pixels of a reduced image to an output pixel, as `render` warps them
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
        return self.of([self.labels[key] for key in keys], drawn)

    def of(self, maps: Sequence[LabelMap], drawn: Sequence[Drawn]) -> TokenTarget:
        """The targets of samples with these label maps, where the maps are."""
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

    def received(self, batch: Any) -> B:
        """A batch that a worker sent, or that was made here."""
        made: B = batch
        return made


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
        rules = self.source.rules
        shape = (len(requests), *self.size, rules.channels)
        kind = torch.float32 if rules.deep else torch.uint8
        images = _shared(torch.empty(shape, dtype=kind))
        clean = _shared(torch.empty(shape, dtype=kind)) if self.clean else None
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

    def drawn(self, request: Request, size: tuple[int, int]) -> Drawn:
        """What happens to an image of `size` = (height, width) pixels."""
        origin = (self.seed, request.epoch, request.image, request.repeat)
        # the same numbers as from the tuple, whose conversion takes as long as the rest
        words = np.array(origin, np.uint32) if max(origin) < 1 << 32 else origin
        return self.transform.draw(size, self.size, np.random.default_rng(words))

    def draw(self, request: Request, data: bytes | None = None) -> tuple[Drawn, Pixels]:
        """What happens to an image, and the image, as large as that needs; `data` is its file."""
        index, rules = request.image, self.source.rules
        name = self.source.keys[index]
        if self.decoded is None:
            data = self.source.read(index) if data is None else data
            size = image_size(data, name, rules)
        else:
            size = self.decoded.size(index)
        drawn = self.drawn(request, size)
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
        """Make one sample's pixels in `slot` [H, W, C], and in `clean` those of its view alone."""
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
