"""How training pairs are drawn: one `View` for image and mask, then colors of the image alone.

The pipeline is mmsegmentation's for ADE20K, from which the published results come: a random scale,
a crop in which no class fills more than a share, a flip, photometric distortion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN
from torch import Tensor

from tokenlabel.geometry import Box, View
from tokenlabel.geometry.nearest import render_nearest
from tokenlabel.geometry.render import Pixels, render
from tokenlabel.labels import LabelMap, token_targets
from tokenlabel.segmentation.classes import IGNORED, Labels

__all__ = ["PairAugmentation", "distort_colors", "scaled_size", "soft_grid"]

_ATTEMPTS = 10  # to find a crop with more than one class
_BRIGHTNESS = 32.0  # gray levels up or down
_CONTRAST = (0.5, 1.5)
_SATURATION = (0.5, 1.5)
_HUE = 18.0 / 180  # of the circle, to either side
_CELL = 4  # pixels on a side of the cells of soft targets: the finest stride of the heads


@dataclass(frozen=True, kw_only=True)
class PairAugmentation:
    """Draws a training sample of `crop` = (height, width) pixels from an image and its labels.

    - `short_side`: pixels to which the shorter side is scaled before the random `scale`; None keeps
      the image's own. The longer side stays within `longest` times it.
    - `largest_share`: a crop in which one class fills more of the labeled pixels is drawn again.
    - `fill`: the color beyond the image's right and bottom edges, where the crop is larger; labels
      are `IGNORED` there.
    """

    crop: tuple[int, int] = (512, 512)
    short_side: int | None = 512
    longest: float = 4.0
    scale: tuple[float, float] = (0.5, 2.0)
    largest_share: float = 0.75
    hflip: float = 0.5
    color: bool = True
    fill: tuple[int, ...] = (
        round(255 * IMAGENET_DEFAULT_MEAN[0]),
        round(255 * IMAGENET_DEFAULT_MEAN[1]),
        round(255 * IMAGENET_DEFAULT_MEAN[2]),
    )

    def __call__(
        self, image: Pixels, labels: Labels, rng: np.random.Generator
    ) -> tuple[Pixels, Labels]:
        """Pixels [h, w, C] and labels [h, w] of one random view."""
        view = self.draw_view((image.shape[0], image.shape[1]), labels, rng)
        return self._pixels(image, view, rng), render_nearest(labels, view, self.crop, IGNORED)

    def soft(
        self, image: Pixels, label_map: LabelMap, rng: np.random.Generator
    ) -> tuple[Pixels, Tensor]:
        """Pixels [h, w, C] of one random view and the class probabilities [C, h / 4, w / 4] of its
        cells, all zero where the label map says nothing.
        """
        best = label_map.classes[0].numpy().astype(np.int16)
        view = self.draw_view((image.shape[0], image.shape[1]), best, rng)
        rows, cols = soft_grid(self.crop)
        target = token_targets([label_map], [view], (rows, cols), smoothing=0.0)
        cells = (target.dense() * target.mask[..., None])[0, 1:]
        return self._pixels(image, view, rng), cells.T.reshape(-1, rows, cols)

    def _pixels(self, image: Pixels, view: View, rng: np.random.Generator) -> Pixels:
        pixels = render(image, view, self.crop, fill=self.fill)
        return distort_colors(pixels, rng) if self.color else pixels

    def draw_view(self, size: tuple[int, int], labels: Labels, rng: np.random.Generator) -> View:
        """A random scale, crop and flip of an image of `size` = (height, width) pixels.

        `labels` [H, W] are its classes, in whatever resolution.
        """
        scale = rng.uniform(*self.scale)
        size = scaled_size(size, self.short_side, self.longest, scale)
        view = self._crop(size, rng)
        for _ in range(_ATTEMPTS - 1):
            shown = render_nearest(labels, view, self.crop, IGNORED)
            if _largest_share(shown) < self.largest_share:
                break
            view = self._crop(size, rng)
        return view.then(View.hflip()) if rng.random() < self.hflip else view

    def _crop(self, size: tuple[int, int], rng: np.random.Generator) -> View:
        """A random crop of an image of `size`; one that is larger begins at the top left corner."""
        top, left = (
            int(rng.integers(max(whole - part, 0) + 1))
            for whole, part in zip(size, self.crop, strict=True)
        )
        return View.crop(Box.from_pixels(left, top, self.crop[1], self.crop[0], size))


def soft_grid(crop: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of the cells of a crop that have soft labels."""
    return max(crop[0] // _CELL, 1), max(crop[1] // _CELL, 1)


def scaled_size(
    size: tuple[int, int], short_side: int | None, longest: float = 4.0, scale: float = 1.0
) -> tuple[int, int]:
    """(height, width) of an image of `size`, its shorter side `scale` times `short_side` pixels.

    The shape is kept; where it is longer than `longest` to one, the longer side decides.
    """
    short, long = min(size), max(size)
    base = short if short_side is None else short_side
    factor = scale * min(base / short, longest * base / long)
    return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)


def _largest_share(labels: Labels) -> float:
    counts = np.bincount(labels[labels != IGNORED])
    return float(counts.max() / counts.sum()) if counts.size else 1.0


def distort_colors(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Random brightness, contrast, saturation and hue, each with probability 1/2 (SSD's recipe).

    Saturation and hue are those of RGB of 8 bits; other pixels [H, W, C] keep them.
    """
    chosen = rng.random(4) < 0.5
    first = rng.random() < 0.5  # contrast before saturation and hue, or after
    brightness = rng.uniform(-_BRIGHTNESS, _BRIGHTNESS) if chosen[0] else 0.0
    contrast = rng.uniform(*_CONTRAST) if chosen[1] else 1.0
    saturation = rng.uniform(*_SATURATION) if chosen[2] else 1.0
    hue = rng.uniform(-_HUE, _HUE) if chosen[3] else 0.0
    if pixels.dtype != np.uint8 or pixels.shape[2] != 3:
        changed = ((pixels + np.float32(brightness)).clip(0, 255) * np.float32(contrast)).clip(
            0, 255
        )
        return (changed.round() if pixels.dtype == np.uint8 else changed).astype(pixels.dtype)
    levels = np.arange(256.0)
    picture = Image.fromarray(pixels)
    before, after = (contrast, 1.0) if first else (1.0, contrast)
    picture = picture.point(_table((levels + brightness).clip(0, 255) * before) * 3)
    if chosen[2] or chosen[3]:
        hues = _table((levels + 256 * hue) % 256)
        hsv = picture.convert("HSV").point(hues + _table(levels * saturation) + _table(levels))
        picture = hsv.convert("RGB")
    return np.array(picture.point(_table(levels * after) * 3))


def _table(values: NDArray[np.float64]) -> list[int]:
    return [int(value) for value in values.round().clip(0, 255)]
