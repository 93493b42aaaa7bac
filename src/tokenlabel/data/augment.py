"""Augmentation: what is drawn for a sample, and what it does to the sample's pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import to_2tuple
from torch import Tensor

from tokenlabel.data.policy import AugMixture, Operation, Policy, parse_policy
from tokenlabel.errors import InputError
from tokenlabel.geometry import Box, View, render
from tokenlabel.geometry.render import Interpolation, Pixels

__all__ = ["Augmentation", "Drawn", "center_view"]

_ERASED_AREA = (0.02, 1 / 3)
_ERASED_ASPECT = (0.3, 1 / 0.3)
_ATTEMPTS = 10
_KEEPS_JITTER = "3a"  # in the names of 3-Augment and of its set for RandAugment


@dataclass(frozen=True)
class Drawn:
    """All that is random about one sample: its view, and what happens to the rendered pixels."""

    view: View
    interpolation: Interpolation = "bilinear"
    operations: tuple[Operation | AugMixture, ...] = ()
    erased: tuple[Box, ...] = ()  # in fractions of the output
    noise: int = 0  # seed of what the erased boxes are filled with


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training samples are drawn. The geometric operations of the policy act on the whole image,
    then come the crop and the flips, as in the released code, all as one `View`; photometric
    operations act on the output, and erasing comes last.
    """

    scale: tuple[float, float] = (0.08, 1.0)  # area of the crop, as share of the image
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of the crop, in pixels
    hflip: float = 0.5
    vflip: float = 0.0
    policy: str | None = None  # see `parse_policy`
    color_jitter: float | tuple[float, ...] = 0.0
    """Of brightness, contrast, saturation[, hue]. As in timm, policies but 3-Augment replace it."""
    interpolation: Interpolation | Literal["random"] = "random"
    erasing: float = 0.0  # probability of erasing a box
    erasing_mode: Literal["pixel", "rand", "const"] = "pixel"  # noise, one color, the mean
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN  # of each channel of pixels in [0, 1]
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD

    exact_pixels = False  # decoding may be fast, and at a reduced scale

    def __post_init__(self) -> None:
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise InputError(f"augmentation {name} must be (low, high) with 0 < low <= high")
        for name in ("hflip", "vflip", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augmentation {name} is a probability: it must lie in [0, 1]")
        if len(self._jitter) not in (3, 4) or min(self._jitter) < 0:
            raise InputError(
                "color_jitter is one strength, or three, or four with hue, none negative"
            )
        _ = self._parsed_policy

    @cached_property
    def fill(self) -> tuple[int, ...]:
        """The mean color, which shows where a view leaves the image."""
        return tuple(min(255, round(255 * value)) for value in self.mean)

    @cached_property
    def _parsed_policy(self) -> Policy | None:
        return parse_policy(self.policy, self.fill) if self.policy else None

    @cached_property
    def _jitter(self) -> tuple[float, ...]:
        jitter = self.color_jitter
        return jitter if isinstance(jitter, tuple) else (jitter, jitter, jitter)

    @property
    def crops_and_flips(self) -> bool:
        """Whether samples are crops and flips, and nothing else."""
        return not (self.policy or self.erasing or (self._jitters and any(self._jitter)))

    @property
    def _jitters(self) -> bool:
        return self.policy is None or _KEEPS_JITTER in self.policy

    def __call__(
        self, image: Image.Image | Pixels, size: int | tuple[int, int]
    ) -> tuple[Tensor, View]:
        """A sample of an image (Pillow's, or uint8 [H, W, C]) for a data set of your own.

        Its channels are those of `mean`. The pixels, uint8 [C, h, w], and the view that they show, to
        make token targets of. `size` is a side or (height, width). What is drawn follows torch's random
        numbers of the process, which a DataLoader seeds in each of its workers.
        """
        height, width = to_2tuple(size)
        pixels = np.array(image)
        if pixels.dtype != np.uint8 or pixels.shape[2:] != (len(self.mean),):
            raise InputError(
                f"{pixels.dtype} {list(pixels.shape)} is not an image of bytes [H, W, {len(self.mean)}]:"
                " convert it"
            )
        rng = np.random.default_rng(int(torch.randint(1 << 62, ())))
        drawn = self.draw((pixels.shape[0], pixels.shape[1]), (height, width), rng)
        sample = self.apply(drawn, pixels, (height, width))
        return torch.from_numpy(sample).permute(2, 0, 1).contiguous(), drawn.view

    # -- drawing ---------------------------------------------------------------------------------

    def draw(
        self, source: tuple[int, int], size: tuple[int, int], rng: np.random.Generator
    ) -> Drawn:
        """Draw for an image of `source` = (height, width) pixels and an output of `size` pixels."""
        view = View.identity()
        operations = self._parsed_policy.draw(rng) if self._parsed_policy else []
        photometric = []
        for operation in operations:
            if isinstance(operation, Operation) and operation.geometric:
                view = view.then(operation.view(source))
            else:
                photometric.append(operation)
        box = _draw_crop(source, self.scale, self.ratio, rng)
        hflip, vflip = rng.random() < self.hflip, rng.random() < self.vflip
        crop = View.crop(box, hflip=hflip, vflip=vflip)
        view = view.then(crop) if operations else crop
        kind: Interpolation = "bicubic" if rng.random() < 0.5 else "bilinear"
        return Drawn(
            view=view,
            interpolation=kind if self.interpolation == "random" else self.interpolation,
            operations=(*photometric, *(_draw_jitter(self._jitter, rng) if self._jitters else ())),
            erased=_draw_erased(size, rng) if rng.random() < self.erasing else (),
            noise=int(rng.integers(1 << 62)),
        )

    # -- applying --------------------------------------------------------------------------------

    def apply(self, drawn: Drawn, image: Pixels, size: tuple[int, int]) -> Pixels:
        """The pixels [h, w, C] of a drawn sample of `image` [H, W, C]; `size` = (h, w)."""
        pixels = render(image, drawn.view, size, drawn.interpolation, self.fill)
        for operation in drawn.operations:
            pixels = operation.apply(pixels)
        for box in drawn.erased:
            self._erase(pixels, box, np.random.default_rng(drawn.noise))
        return pixels

    def _erase(self, pixels: Pixels, box: Box, rng: np.random.Generator) -> None:
        """Fill a box with noise that is N(0, 1) after normalization, within what a byte can hold."""
        height, width = pixels.shape[:2]
        rows = slice(round(box.y0 * height), round(box.y1 * height))
        cols = slice(round(box.x0 * width), round(box.x1 * width))
        region = pixels[rows, cols]
        shape = region.shape if self.erasing_mode == "pixel" else region.shape[2:]
        noise = np.zeros(shape) if self.erasing_mode == "const" else rng.standard_normal(shape)
        colors = (np.asarray(self.mean) + noise * np.asarray(self.std)) * 255
        region[...] = colors.round().clip(0, 255).astype(pixels.dtype)


def center_view(
    source: tuple[int, int], size: tuple[int, int], crop_pct: float, *, squash: bool = False
) -> View:
    """The center crop of evaluation: to the pixel what timm's resize-then-crop shows.

    The image is resized to just cover `size` / `crop_pct` (or stretched to it, with `squash`), then
    `size` = (h, w) is cut out of the middle.
    """
    rows, cols = covered = [math.floor(side / crop_pct) for side in size]
    if not squash:
        tight = 0 if covered[0] * source[1] >= covered[1] * source[0] else 1
        rows, cols = (int(covered[tight] * side / source[tight]) for side in source)
    top, left = round((rows - size[0]) / 2), round((cols - size[1]) / 2)
    return View.crop(Box.from_pixels(left, top, size[1], size[0], (rows, cols)))


def _draw_crop(
    source: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> Box:
    """A random-resized crop of whole pixels, as torchvision's RandomResizedCrop draws it."""
    rows, cols = source
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_ATTEMPTS):
        # as `rng.uniform`, which takes three times as long
        area = rows * cols * (scale[0] + (scale[1] - scale[0]) * rng.random())
        aspect = math.exp(low + (high - low) * rng.random())
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= cols and 0 < height <= rows:
            left, top = rng.integers(cols - width + 1), rng.integers(rows - height + 1)
            return Box.from_pixels(int(left), int(top), width, height, source)
    width, height = min(cols, round(rows * ratio[1])), min(rows, round(cols / ratio[0]))
    return Box.from_pixels((cols - width) // 2, (rows - height) // 2, width, height, source)


def _draw_jitter(strengths: tuple[float, ...], rng: np.random.Generator) -> list[Operation]:
    """torchvision's ColorJitter: each factor drawn evenly around 1 (hue: 0), in random order."""
    if not any(strengths):
        return []
    operations = [
        Operation(name, (float(rng.uniform(max(0.0, 1 - strength), 1 + strength)),))
        for name, strength in zip(("Brightness", "Contrast", "Color"), strengths, strict=False)
        if strength > 0
    ]
    if len(strengths) == 4 and strengths[3] > 0:
        operations.append(Operation("Hue", (float(rng.uniform(-strengths[3], strengths[3])),)))
    return [operations[i] for i in rng.permutation(len(operations))]


def _draw_erased(size: tuple[int, int], rng: np.random.Generator) -> tuple[Box, ...]:
    """timm's RandomErasing: one box of whole pixels, or none where ten draws do not fit."""
    rows, cols = size
    for _ in range(_ATTEMPTS):
        area = rng.uniform(*_ERASED_AREA) * rows * cols
        aspect = math.exp(rng.uniform(*np.log(_ERASED_ASPECT)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width < cols and 0 < height < rows:
            left, top = rng.integers(cols - width + 1), rng.integers(rows - height + 1)
            return (Box.from_pixels(int(left), int(top), width, height, size),)
    return ()
