"""From an image to a model's input: which part of it, at what size, and in what numbers."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from timm.data import resolve_data_config
from timm.models import get_model_input_config
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.choices import Fit
from tokenlabel.data.augment import Drawn, center_view
from tokenlabel.errors import InputError
from tokenlabel.geometry import View, render
from tokenlabel.geometry.render import Interpolation, Pixels

__all__ = ["Normalize", "Preprocessing"]

_LEAST_CROP = 0.05  # of the resized image
_LARGEST_SIDE = 1 << 14  # pixels


class Normalize(nn.Module):
    """Images [B, C, H, W] from 0 to 255 to a model's input: (images / 255 - mean) / std, by channel.

    The images are normalized where they are, so it is bytes, mostly, that travel to the device.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images / 255 - self.mean) / self.std


@dataclass(frozen=True)
class Preprocessing:
    """What a model is shown of an image, and in what numbers. There is no other preprocessing.

    `fit` says how an image of any shape becomes an input:

    - `crop`: it is resized to just cover `image_size` / `crop_pct`, and the middle is cut out;
    - `squash`: it is stretched to `image_size` / `crop_pct`, and the middle is cut out;
    - `keep`: the whole image in about its own shape: the area of `image_size`, sides a `multiple`.
    """

    image_size: tuple[int, int]  # (height, width) of the input, in pixels
    crop_pct: float  # the input's size as a share of the resized image's
    interpolation: Interpolation
    mean: tuple[float, ...]  # of each channel of pixels in [0, 1]
    std: tuple[float, ...]
    fit: Fit = "crop"
    multiple: int = 1  # in pixels: what the sides of resized inputs must be divisible by

    def __post_init__(self) -> None:
        """Settings come with weights, from anywhere. Raises InputError for what shows no image."""
        numbers = (*self.mean, *self.std, self.crop_pct, *self.image_size)
        if not all(isinstance(n, Real) and abs(n) <= sys.float_info.max for n in numbers):
            raise InputError(f"mean, std, crop and size of a model's input must be numbers: {self}")
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise InputError(
                f"std = {self.std} must be positive, one for each of mean = {self.mean}"
            )
        if not _LEAST_CROP <= self.crop_pct <= 1 / _LEAST_CROP:
            raise InputError(
                f"crop = {self.crop_pct:g} must be from {_LEAST_CROP} to {1 / _LEAST_CROP:g}"
            )
        if not 1 <= min(self.image_size) <= max(self.image_size) <= _LARGEST_SIDE:
            raise InputError(
                f"image size {self.image_size} must be from 1 to {_LARGEST_SIDE} pixels"
            )

    @property
    def channels(self) -> int:
        """How many channels the model takes."""
        return len(self.mean)

    def require_channels(self, in_chans: int) -> None:
        """Raises InputError where images of so many channels are not what the model takes."""
        if self.channels != in_chans:
            raise InputError(
                f"the model takes images of {self.channels} channels, and they are read with"
                f" {in_chans}: set in_chans={self.channels}"
            )

    @classmethod
    def of_timm(cls, model: nn.Module, *, use_test_size: bool = True) -> Preprocessing:
        """The settings that a timm model's weights were published with: its size at test time, or
        (without `use_test_size`) that of its training.

        Mean and std of RGB become, for a model of another number of channels, those of gray: their
        average for every channel. Raises InputError for settings that show no image.
        """
        channels = get_model_input_config(model)["input_size"][0]
        config: dict[str, Any] = resolve_data_config({}, model=model, use_test_size=use_test_size)
        return cls(
            image_size=tuple(config["input_size"][1:]),
            crop_pct=config["crop_pct"],
            interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
            mean=_of_channels(config["mean"], channels),
            std=_of_channels(config["std"], channels),
            fit="squash" if config["crop_mode"] == "squash" else "crop",
        )

    def for_timm(self) -> dict[str, Any]:
        """The same as timm writes it down beside weights; `of_timm` reads it."""
        return {
            "input_size": (self.channels, *self.image_size),
            "crop_pct": self.crop_pct,
            "crop_mode": "squash" if self.fit == "squash" else "center",
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
        }

    def fitted(self, fit: Fit) -> Preprocessing:
        """The same with another `fit`; `squash` and `keep` then show the whole image."""
        crop_pct = self.crop_pct if fit == "crop" else 1.0
        return dataclasses.replace(self, fit=fit, crop_pct=crop_pct)

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the input made of an image of `size` = (height, width) pixels."""
        if self.fit != "keep":
            return self.image_size
        scale = (self.image_size[0] * self.image_size[1] / (size[0] * size[1])) ** 0.5
        return to_multiple(size[0] * scale, self.multiple), to_multiple(
            size[1] * scale, self.multiple
        )

    def view(self, size: tuple[int, int]) -> View:
        """What is shown of an image of `size` = (height, width) pixels."""
        if self.fit == "keep":
            return View.identity()
        return center_view(size, self.image_size, self.crop_pct, squash=self.fit == "squash")

    def pixels(self, image: Pixels) -> Tensor:
        """An image [H, W, C] as the model's input before it is normalized: [C, h, w], of its type."""
        size = (image.shape[0], image.shape[1])
        shown = render(image, self.view(size), self.input_size(size), self.interpolation)
        return torch.from_numpy(shown).permute(2, 0, 1)

    def inputs(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] of one size as inputs before they are normalized: [B, C, h, w].

        On the images' device, and with gradients of nothing; within a gray level of `pixels`.
        """
        size = (images.shape[2], images.shape[3])
        box, (height, width) = self.view(size).source_box(), self.input_size(size)
        whole = round(height / box.height), round(width / box.width)
        if whole != size:
            levels = not images.is_floating_point()
            images = F.interpolate(
                images.float(), whole, mode=self.interpolation, antialias=True, align_corners=False
            )
            images = (images.round_() if levels else images).clamp_(0, 255)
        top, left = round(box.y0 * whole[0]), round(box.x0 * whole[1])
        return images[:, :, top : top + height, left : left + width]

    def normalize(self, images: Tensor) -> Tensor:
        """Images [B, C, h, w] from 0 to 255 to the model's input, on their device."""
        normalized: Tensor = Normalize(self.mean, self.std).to(images.device)(images)
        return normalized

    # -- as the transform of a loader, which draws nothing ---------------------------------------

    exact_pixels = True

    def draw(self, source: tuple[int, int], size: tuple[int, int], _: np.random.Generator) -> Drawn:
        assert size == self.image_size
        return Drawn(self.view(source), self.interpolation)

    def apply(self, drawn: Drawn, image: Pixels, size: tuple[int, int]) -> Pixels:
        return render(image, drawn.view, size, drawn.interpolation)


def to_multiple(length: float, multiple: int) -> int:
    """The multiple that is nearest to a length in pixels, and at least one."""
    return max(round(length / multiple), 1) * multiple


def _of_channels(values: Any, channels: int) -> tuple[float, ...]:
    """One number for each channel; of those of RGB the average for another count than three.

    Raises InputError for any other.
    """
    found = tuple(values) if isinstance(values, list | tuple) else (values,)
    if len(found) == channels:
        return found
    if len(found) == 3:
        return (sum(found) / 3,) * channels
    raise InputError(
        f"the model's mean and std must be {channels} numbers each, one a channel, not {values!r}"
    )
