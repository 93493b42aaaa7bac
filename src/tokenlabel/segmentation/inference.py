"""From an image of any size to the class of every pixel, in tiles: memory does not grow with it.

Each tile of the output gathers the scores of exactly those windows that would cover it in a pass
over the whole image, so that tiles change memory and time and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tokenlabel.choices import Arithmetic
from tokenlabel.data.inputs import Normalize
from tokenlabel.errors import InputError
from tokenlabel.geometry import View
from tokenlabel.geometry.render import Pixels, render
from tokenlabel.geometry.windows import WindowMean, window_starts
from tokenlabel.models.arithmetic import autocast, chosen_arithmetic
from tokenlabel.segmentation.augment import scaled_size

__all__ = ["Inference", "Segmenter"]

_SIDE = 512  # pixels of the trial's input, where images of any size are shown whole


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How an image is shown to the model.

    - `short_side`, `longest`: the size it is scaled to (see `scaled_size`).
    - `window`: side of the sliding window in pixels, None for the whole image at once; `stride`
      from one window to the next. Published: 512 and 341.
    - `scales`, `flip`: further sizes, and mirror images, whose probabilities are averaged.
      Published for multi-scale results: 0.5, 0.75, 1, 1.25, 1.5, 1.75, each flipped too.
    - `tile`: pixels on a side of the output that are made at once; `batch`: windows at once.

    Raises InputError for values that would show no pixel, or leave gaps between windows.
    """

    short_side: int | None = 512
    longest: float = 4.0
    window: int | None = 512
    stride: int = 341
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    tile: int = 1024
    batch: int = 4

    def __post_init__(self) -> None:
        counts = {"window": self.window, "stride": self.stride, "tile": self.tile}
        for name, value in (counts | {"batch": self.batch}).items():
            if value is not None and value < 1:
                raise InputError(f"{name} = {value}: give at least 1 pixel or window")
        if not self.scales or min(self.scales) <= 0:
            raise InputError(f"scales = {self.scales}: give one or more sizes above 0")
        if self.window is not None and self.stride > self.window:
            raise InputError(
                f"stride = {self.stride} leaves gaps between windows of {self.window} pixels:"
                " give a smaller stride"
            )


@dataclass(frozen=True)
class Segmenter:
    """Predicts classes with a model in evaluation mode that maps normalized images to scores."""

    model: nn.Module
    mean: Sequence[float]
    std: Sequence[float]
    inference: Inference
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32  # of the model's arithmetic

    def in_arithmetic(self, wanted: Arithmetic, images: int) -> Segmenter:
        """The same in the `wanted` arithmetic; "auto" is what suits so many images."""
        side = self.inference.window or self.inference.short_side or _SIDE

        def step(count: int, dtype: torch.dtype) -> None:
            blank = np.zeros((count, side, side, len(self.mean)), np.uint8)
            dataclasses.replace(self, dtype=dtype)._run(blank)

        device, batch = torch.device(self.device), self.inference.batch
        chosen = chosen_arithmetic(wanted, device, step, batch=batch, images=images)
        return dataclasses.replace(self, dtype=chosen)

    @cached_property
    def _normalize(self) -> Normalize:
        return Normalize(self.mean, self.std).to(self.device)

    @torch.inference_mode()
    def __call__(self, image: Pixels) -> NDArray[np.int16]:
        """The class [H, W] of every pixel of an image [H, W, C]."""
        labels = np.empty(image.shape[:2], np.int16)
        for rows, cols, probabilities in self._tiles(image):
            labels[rows, cols] = probabilities.argmax(0).short().cpu().numpy()
        return labels

    @torch.inference_mode()
    def cells(self, image: Pixels, grid: tuple[int, int]) -> Tensor:
        """Class probabilities [C, h, w] of an image [H, W, C], averaged over `grid` = (h, w) cells."""
        height, width = image.shape[:2]
        mean = WindowMean((0, height), (0, width), grid)
        for rows, cols, probabilities in self._tiles(image):
            size = (rows.stop - rows.start, cols.stop - cols.start)
            mean.add(probabilities.cpu(), rows.start, cols.start, size)
        return mean.mean()

    def _tiles(self, image: Pixels) -> Iterator[tuple[slice, slice, Tensor]]:
        """Rows, columns and class probabilities [C, h, w] of each piece of the output."""
        size = (image.shape[0], image.shape[1])
        appearances = list(self._appearances(image))
        for rows in _pieces(size[0], self.inference.tile):
            for cols in _pieces(size[1], self.inference.tile):
                total: Tensor | float = 0.0
                for shown, flipped in appearances:
                    total = total + self._probabilities(shown, flipped, rows, cols, size)
                assert isinstance(total, Tensor)
                yield rows, cols, total / len(appearances)

    def _appearances(self, image: Pixels) -> Iterator[tuple[Pixels, bool]]:
        """The image at each size, as it is and mirrored."""
        plan, size = self.inference, (image.shape[0], image.shape[1])
        for scale in plan.scales:
            target = scaled_size(size, plan.short_side, plan.longest, scale)
            shown = render(image, View.identity(), target)
            yield shown, False
            if plan.flip:
                yield shown[:, ::-1], True

    def _probabilities(
        self, shown: Pixels, flipped: bool, rows: slice, cols: slice, size: tuple[int, int]
    ) -> Tensor:
        """Class probabilities [C, h, w] of a tile of the output, from one appearance."""
        if flipped:
            cols = slice(size[1] - cols.stop, size[1] - cols.start)
        row_taps = _Taps.between(rows, size[0], shown.shape[0])
        col_taps = _Taps.between(cols, size[1], shown.shape[1])
        scores = self._scores(shown, row_taps.span, col_taps.span)
        scores = col_taps.apply(row_taps.apply(scores, dim=1), dim=2)
        probabilities = scores.softmax(0)
        return probabilities.flip(2) if flipped else probabilities

    def _scores(self, shown: Pixels, rows: slice, cols: slice) -> Tensor:
        """Mean scores [C, h, w], over all windows, of a region of the image as shown."""
        height, width = shown.shape[:2]
        tall, wide = self._window(height), self._window(width)
        windows = [
            (top, left)
            for top in window_starts(height, tall, self.inference.stride)
            for left in window_starts(width, wide, self.inference.stride)
            if top < rows.stop and top + tall > rows.start
            if left < cols.stop and left + wide > cols.start
        ]
        mean = WindowMean(
            (rows.start, rows.stop),
            (cols.start, cols.stop),
            (rows.stop - rows.start, cols.stop - cols.start),
        )
        for first in range(0, len(windows), self.inference.batch):
            chosen = windows[first : first + self.inference.batch]
            parts = np.stack([shown[top : top + tall, left : left + wide] for top, left in chosen])
            for (top, left), scores in zip(chosen, self._run(parts), strict=True):
                mean.add(scores, top, left, (tall, wide))
        return mean.mean()

    def _window(self, length: int) -> int:
        return min(self.inference.window or length, length)

    def _run(self, parts: Pixels) -> Tensor:
        """Scores [N, C, h, w] of pixels [N, h, w, C]."""
        images = torch.from_numpy(parts).to(self.device).permute(0, 3, 1, 2)
        with autocast(images.device, self.dtype):
            scores: Tensor = self.model(self._normalize(images))
        return scores.float()


def _pieces(length: int, piece: int) -> list[slice]:
    return [slice(start, min(start + piece, length)) for start in range(0, length, piece)]


@dataclass(frozen=True)
class _Taps:
    """Bilinear interpolation along one axis: the two source pixels of each output pixel."""

    span: slice  # of the source pixels that take part
    near: Tensor  # index within `span`
    far: Tensor
    share: Tensor  # of `far`

    @classmethod
    def between(cls, piece: slice, length: int, source: int) -> _Taps:
        """For output pixels `piece` of an axis of `length`, read from one of `source` pixels."""
        center = (torch.arange(piece.start, piece.stop).double() + 0.5) * source / length - 0.5
        center = center.clamp(0, source - 1)
        near = center.floor().long()
        far = (near + 1).clamp(max=source - 1)
        span = slice(int(near[0]), int(far[-1]) + 1)
        return cls(span, near - span.start, far - span.start, (center - near).float())

    def apply(self, scores: Tensor, dim: int) -> Tensor:
        share = self.share.to(scores.device).view(-1, *([1] * (scores.ndim - 1 - dim)))
        near, far = (
            scores.index_select(dim, taps.to(scores.device)) for taps in (self.near, self.far)
        )
        return torch.lerp(near, far, share)
