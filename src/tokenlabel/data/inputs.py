"""From an image to a model's input, as its recipe says: a centred crop, resized, normalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.data import resolve_data_config
from torch import Tensor, nn

from tokenlabel.data.augment import center_view
from tokenlabel.data.batch import normalize
from tokenlabel.geometry import View, render
from tokenlabel.geometry.render import Interpolation, Pixels

__all__ = ["Preprocessing"]


@dataclass(frozen=True)
class Preprocessing:
    """What a model is shown of an image: `tokenlabel.data.augment.center_view` of it."""

    image_size: tuple[int, int]  # (height, width) of the input, in pixels
    crop_pct: float  # the input's size as a share of the resized image's
    interpolation: Interpolation
    mean: tuple[float, float, float]  # of pixels in [0, 1]
    std: tuple[float, float, float]
    squash: bool = False  # whether the image is stretched to the input's shape

    @classmethod
    def of_timm(cls, model: nn.Module) -> Preprocessing:
        """The test-time settings that a timm model's weights were published with."""
        config: dict[str, Any] = resolve_data_config({}, model=model, use_test_size=True)
        return cls(
            image_size=tuple(config["input_size"][1:]),
            crop_pct=config["crop_pct"],
            interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            squash=config["crop_mode"] == "squash",
        )

    def view(self, size: tuple[int, int]) -> View:
        """What is shown of an image of `size` = (height, width) pixels."""
        return center_view(size, self.image_size, self.crop_pct, squash=self.squash)

    def pixels(self, image: Pixels) -> Tensor:
        """An image [H, W, 3] as the model's input before normalisation: uint8 [3, h, w]."""
        height, width = image.shape[:2]
        shown = render(image, self.view((height, width)), self.image_size, self.interpolation)
        return torch.from_numpy(shown).permute(2, 0, 1)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, h, w] to the model's input."""
        return normalize(images, self.mean, self.std)
