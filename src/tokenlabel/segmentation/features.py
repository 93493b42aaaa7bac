"""Features of a frozen backbone, kept in memory: it sees every view of every scene once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from tokenlabel.data.loader import Loader, loader_workers
from tokenlabel.data.order import BatchOrder, Request
from tokenlabel.errors import InputError
from tokenlabel.models.layout import image_shape, on_meta
from tokenlabel.segmentation.augment import soft_grid
from tokenlabel.segmentation.dataset import PairBatch, Sample, Samples
from tokenlabel.segmentation.model import SegmentationModel
from tokenlabel.torchrun import local_world

__all__ = ["FeatureLoader", "kept_bytes", "require_memory"]

_NO_IMAGE = torch.empty(0, dtype=torch.uint8)
_KEPT = torch.float16  # what features are kept as
_LARGEST = torch.finfo(_KEPT).max
_SHARE = 0.8  # of the machine's memory that features and labels may take

Features = Callable[[Tensor], Sequence[Tensor]]


class FeatureLoader(Loader[PairBatch]):
    """Batches with the features of their images in the place of the images.

    `features` maps images [1, C, H, W] from 0 to 255 to a frozen backbone's maps. They are made one
    scene at a time, so that they do not depend on what shares a batch, and kept as float16; what is
    larger in size than float16 can say becomes its largest number.
    """

    def __init__(
        self, samples: Samples, order: BatchOrder, workers: int, features: Features
    ) -> None:
        super().__init__(samples, order, 0, False)
        self.scenes, self.features = samples, features
        self.readers = max(loader_workers(workers), 1)
        self._known: dict[tuple[int, int], tuple[Sample, tuple[Tensor, ...]]] = {}

    def epoch(self, number: int, start: int = 0) -> Iterator[PairBatch]:
        self.order.epoch, self.order.start = number, start
        with ThreadPoolExecutor(self.readers) as threads:
            for requests in self.order:
                places = [(request.image, self.scenes.view(request)) for request in requests]
                new = [i for i, place in enumerate(places) if place not in self._known]
                samples = threads.map(self.scenes.sample, [requests[i] for i in new])
                for i, sample in zip(new, samples, strict=True):
                    self._known[places[i]] = self._look(sample)
                yield self._batch(requests, [self._known[place] for place in places])

    @torch.no_grad()
    def _look(self, sample: Sample) -> tuple[Sample, tuple[Tensor, ...]]:
        maps = self.features(sample.image.permute(2, 0, 1)[None])
        kept = tuple(x[0].clamp(-_LARGEST, _LARGEST).to("cpu", _KEPT) for x in maps)
        return sample._replace(image=_NO_IMAGE), kept

    def _batch(
        self, requests: list[Request], known: Sequence[tuple[Sample, tuple[Tensor, ...]]]
    ) -> PairBatch:
        batch = self.scenes.batch(requests, [sample for sample, _ in known])
        maps = zip(*(features for _, features in known), strict=True)
        return replace(batch, features=tuple(torch.stack(x) for x in maps))


def kept_bytes(model: SegmentationModel, crop: tuple[int, int], masked: int, soft: int = 0) -> int:
    """The memory that views of scenes with masks, and with soft labels, take on this machine.

    Each of its processes comes to keep all of them.
    """
    shown: SegmentationModel = on_meta(model)
    image = torch.empty(1, image_shape(model.pyramid.backbone)[0], *crop, device="meta")
    features = sum(x.numel() for x in shown.features(image)) * _KEPT.itemsize
    labels = math.prod(crop) * torch.int16.itemsize
    cells = math.prod(soft_grid(crop)) * model.num_classes * torch.float32.itemsize
    return local_world() * ((masked + soft) * (features + labels) + soft * cells)


def require_memory(needed: int, views: int) -> str:
    """So many bytes in words. Raises InputError where this machine has not so much memory."""
    said = f"{needed / 1e9:.1f} GB of memory"
    if needed > _SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise InputError(
            f"the features of {views:,} views would take {said}, with their labels: choose fewer"
            " augment.views, a smaller augment.crop, or set augment.views to null, which keeps none"
        )
    return said
