"""`ImageAnnotator`: label maps from any network that scores the cells of an image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.annotators.class_map import ClassMap
from tokenlabel.annotators.protocol import Pixels
from tokenlabel.choices import Arithmetic
from tokenlabel.data.inputs import Normalize, Preprocessing, to_multiple
from tokenlabel.data.orientation import UPRIGHT
from tokenlabel.geometry import Box
from tokenlabel.geometry.windows import WindowMean, window_starts
from tokenlabel.labels import LabelMap
from tokenlabel.models.arithmetic import autocast, chosen_arithmetic, name_of, native_arithmetic

__all__ = ["ONE_VIEW", "ImageAnnotator", "Running", "Views", "weights_hash"]

Item = tuple[Tensor, Box]  # [C, h, w] from 0 to 255, the part of the image it shows
_CPU_BATCH = 32  # images; the arithmetic is found by trying on CPUs alone


@dataclass(frozen=True)
class Views:
    """What is averaged, as class probabilities, into one map."""

    flip: bool = False  # the mirrored image too
    scales: tuple[float, ...] = (1.0,)  # the image at these multiples of the input size
    window: int | None = None  # side in pixels of square windows that overlap by about half


ONE_VIEW = Views()


class Running(TypedDict, total=False):
    """Keywords that every network annotator takes; see `ImageAnnotator` for their defaults."""

    top_k: int  # classes kept in each cell, if there are so many
    views: Views
    device: str | torch.device
    dtype: torch.dtype | None  # of the network's arithmetic; None leaves it open
    compile: bool
    views_at_once: int | None  # of `label_views`; None labels all together


class ImageAnnotator:
    """Runs `scores`, a module from normalized images [B, C, H, W] to class logits [B, h, w, C].

    `num_classes` and the classes of the maps are those of `class_map`, if one is given. `class_names`
    are theirs, where they are known; `notes` are lines that a user should read before the work.
    """

    def __init__(
        self,
        scores: nn.Module,
        num_classes: int,
        preprocessing: Preprocessing,
        *,
        top_k: int = 5,
        views: Views = ONE_VIEW,
        class_map: ClassMap | None = None,
        class_names: Sequence[str] | None = None,
        notes: Sequence[str] = (),
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = torch.float32,
        compile: bool = False,
        views_at_once: int | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        self.num_classes = class_map.num_classes if class_map else num_classes
        known = class_names is not None and len(class_names) == self.num_classes
        self.class_names = tuple(class_names or ()) if known else None
        self.notes = tuple(notes)
        self.device = torch.device(device)
        self.dtype, self._open = dtype or native_arithmetic(self.device), dtype is None
        scores = scores.eval().to(self.device).to(memory_format=torch.channels_last)
        self._network = scores  # whose speed is tried
        self._scores = torch.compile(scores) if compile else scores
        self.preprocessing, self.views = preprocessing, views
        self.channels = preprocessing.channels
        self.top_k = min(top_k, self.num_classes)
        self.views_at_once = views_at_once
        self._class_map = class_map
        self._origin = origin or {}
        self._normalize = Normalize(preprocessing.mean, preprocessing.std).to(self.device)

    @property
    def description(self) -> dict[str, Any]:
        mapping = {"class_map": self._class_map.description} if self._class_map else {}
        return {
            **self._origin,
            "top_k": self.top_k,
            "dtype": name_of(self.dtype),
            "preprocessing": asdict(self.preprocessing),
            "views": asdict(self.views),
            **mapping,
        }

    def settle_arithmetic(self, wanted: Arithmetic, images: int) -> None:
        """See `tokenlabel.annotators.protocol.Network`."""
        if not self._open:
            return
        height, width = self.preprocessing.image_size
        side = self.views.window or max(height, width)
        shape = (self.channels, min(side, height), min(side, width))
        blank = torch.zeros(1, *shape, device=self.device)

        def step(count: int, dtype: torch.dtype) -> None:
            shown = blank.expand(count, -1, -1, -1).contiguous(memory_format=torch.channels_last)
            with autocast(self.device, dtype):
                self._network(shown)

        self.dtype = chosen_arithmetic(wanted, self.device, step, batch=_CPU_BATCH, images=images)
        self._open = False

    def batch_size(self) -> int:
        """32 on a CPU; else half of the largest power of two that fits the accelerator's memory."""
        if self.device.type == "cpu":
            return _CPU_BATCH
        image = torch.zeros(self.channels, *self.preprocessing.image_size, dtype=torch.uint8)
        return largest_batch(lambda size: self.annotate([(image, Box())] * size)) // 2

    def prepare(self, key: str, pixels: Pixels, orientation: int = UPRIGHT) -> Item:  # noqa: ARG002
        view = self.preprocessing.view((pixels.shape[0], pixels.shape[1]))
        return self.preprocessing.pixels(pixels), view.source_box()

    @torch.inference_mode()
    def annotate(self, batch: Sequence[Item]) -> list[LabelMap]:
        """Images of one shape go through the network together."""
        maps: dict[int, LabelMap] = {}
        for shape in sorted({image.shape for image, _ in batch}):
            places = [i for i, (image, _) in enumerate(batch) if image.shape == shape]
            scores, classes, normalizer = (
                kept.cpu() for kept in self._kept(torch.stack([batch[i][0] for i in places]))
            )
            for n, i in enumerate(places):
                maps[i] = LabelMap(
                    scores[n], classes[n], normalizer[n], batch[i][1], self.num_classes
                )
        return [maps[i] for i in range(len(batch))]

    @torch.no_grad()  # not inference mode: a training step computes with what comes out
    def label_views(self, views: Tensor) -> list[LabelMap]:
        """Maps of views [B, C, H, W] in [0, 255], each a picture of its own, on the views' device.

        Gray views become those of three equal channels where it takes these.
        """
        views = views.expand(-1, self.channels, -1, -1)
        extent = self.preprocessing.view((views.shape[2], views.shape[3])).source_box()
        return [
            LabelMap(scores, classes, normalizer, extent, self.num_classes)
            for part in torch.split(
                self.preprocessing.inputs(views), self.views_at_once or len(views)
            )
            for scores, classes, normalizer in zip(*self._kept(part), strict=True)
        ]

    def _kept(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best scores and classes [B, K, h, w] of images, and normalizers [B, h, w]."""
        logits = self.logits(images)
        scores, classes = logits.topk(self.top_k, dim=-1)
        return scores.permute(0, 3, 1, 2), classes.permute(0, 3, 1, 2), logits.logsumexp(-1)

    def logits(self, images: Tensor) -> Tensor:
        """Class logits [B, h, w, C] of images [B, C, H, W] from 0 to 255, averaged over the views."""
        x = self._normalize(images.to(self.device, non_blocking=True))
        x = x.contiguous(memory_format=torch.channels_last)
        views = [
            (_rescale(x, scale, self.preprocessing.multiple), flip)
            for scale in self.views.scales
            for flip in ([False, True] if self.views.flip else [False])
        ]
        maps = [self._one_view(view, flip) for view, flip in views]
        if len(maps) == 1:
            return maps[0]
        probabilities = [_resized(m.softmax(-1), maps[0].shape) for m in maps]
        return torch.stack(probabilities).mean(0).clamp(min=1e-30).log()

    def _one_view(self, x: Tensor, flip: bool) -> Tensor:
        x = x.flip(3) if flip else x
        with autocast(self.device, self.dtype):
            side = self.views.window
            logits = (self._windows(x, side) if side else self._scores(x)).float()
        if self._class_map:
            logits = self._class_map(logits)
        return logits.flip(2) if flip else logits

    def _windows(self, x: Tensor, side: int) -> Tensor:
        """Logits of overlapping square windows, averaged where they overlap."""
        rows, cols = x.shape[2:]
        tall, wide = min(side, rows), min(side, cols)
        multiple = self.preprocessing.multiple
        step = min(max(side // 2 // multiple, 1) * multiple, side)
        mean: WindowMean | None = None
        for top in window_starts(rows, tall, step):
            for left in window_starts(cols, wide, step):
                scores = self._scores(x[:, :, top : top + tall, left : left + wide]).float()
                if mean is None:  # the cells of the whole are as large as those of a window
                    cells = (
                        round(rows * scores.shape[1] / tall),
                        round(cols * scores.shape[2] / wide),
                    )
                    mean = WindowMean((0, rows), (0, cols), cells)
                mean.add(scores.permute(0, 3, 1, 2), top, left, (tall, wide))
        assert mean is not None
        return mean.mean().permute(0, 2, 3, 1)


def weights_hash(model: nn.Module, *, without: Collection[str] = ()) -> str:
    """sha256 (hex) of names and values of parameters and buffers, of all but the modules `without`."""
    digest = hashlib.sha256()
    apart = tuple(f"{name}." for name in without)
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(apart):
            continue
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def largest_batch(attempt: Callable[[int], object], most: int = 2048) -> int:
    """The largest power of two, from 2 to `most`, that `attempt` does not run out of memory for."""
    size = 1
    try:
        while size < most:
            attempt(2 * size)
            size *= 2
    except torch.OutOfMemoryError:
        torch.accelerator.empty_cache()
    return max(size, 2)


def _rescale(x: Tensor, scale: float, multiple: int) -> Tensor:
    if scale == 1:
        return x
    size = [to_multiple(n * scale, multiple) for n in x.shape[2:]]
    return F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)


def _resized(maps: Tensor, shape: torch.Size) -> Tensor:
    """Maps [B, h, w, C] on the grid of another batch of maps."""
    grid = list(shape[1:3])
    if list(maps.shape[1:3]) == grid:
        return maps
    planes = maps.permute(0, 3, 1, 2)
    planes = F.interpolate(planes, grid, mode="bilinear", antialias=True, align_corners=False)
    return planes.permute(0, 2, 3, 1)
