"""How an image is brought to an annotator's input, and which part of it the input shows."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from tokenlabel.annotators.protocol import Pixels
from tokenlabel.geometry import Box

__all__ = ["Fit", "Interpolation", "fit_image"]

Fit = Literal["squash", "keep", "crop"]
Interpolation = Literal["bilinear", "bicubic"]


def fit_image(
    pixels: Pixels,
    size: tuple[int, int],
    fit: Fit,
    multiple: int = 1,
    crop_pct: float = 1.0,
    interpolation: Interpolation = "bicubic",
) -> tuple[Tensor, Box]:
    """uint8 [3, h, w] and the part of the image it shows.

    - `squash`: the whole image at exactly `size` (height, width);
    - `keep`: the whole image with about its own shape: the area of `size`, sides a `multiple`;
    - `crop`: the centred square of `crop_pct` of the shorter side, at `size`.
    """
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    rows, cols = pixels.shape[:2]
    extent = Box()
    if fit == "crop":
        extent = Box.center_square((rows, cols), crop_pct)
        top, left = round(extent.y0 * rows), round(extent.x0 * cols)
        side = max(round(extent.height * rows), 1)
        extent = Box.from_pixels(left, top, side, side, (rows, cols))
        image = image[:, top : top + side, left : left + side]
    elif fit == "keep":
        scale = (size[0] * size[1] / (rows * cols)) ** 0.5
        height, width = (max(round(n * scale / multiple), 1) * multiple for n in (rows, cols))
        size = (height, width)
    resized: Tensor = F.resize(
        image, list(size), F.InterpolationMode(interpolation), antialias=True
    )
    return resized, extent
