"""Photometric operations on pixels, by the names of timm's table.

Most of them change each byte independently: a table of 256 entries is applied to the bytes, in a twelfth
of the time of a conversion to a Pillow image and back. The others are timm's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from timm.data.auto_augment import NAME_TO_OP
from torchvision.transforms.functional import adjust_hue

from tokenlabel.geometry.render import Pixels

__all__ = ["change_pixels"]

_LEVELS = np.arange(256)


def change_pixels(pixels: Pixels, name: str, args: tuple[float, ...]) -> Pixels:
    """The operation `name` of timm's table, or torchvision's "Hue", on pixels [H, W, C].

    Where these are not RGB of 8 bits, each channel is changed as a gray image of its own: what there
    is only of colors (saturation, hue) leaves it as it is.
    """
    if pixels.dtype != np.uint8 or pixels.shape[2] != 3:
        planes = [_changed_plane(plane, name, args) for plane in np.moveaxis(pixels, 2, 0)]
        return np.stack(planes, 2)
    table = _table(pixels, name.removesuffix("Increasing"), *args)
    if table is not None:
        return _translated(pixels, table.clip(0, 255).astype(np.uint8))
    return _by_pillow(pixels, name, args)


def _by_pillow(pixels: Pixels, name: str, args: tuple[float, ...]) -> Pixels:
    function = adjust_hue if name == "Hue" else NAME_TO_OP[name]
    return np.array(function(Image.fromarray(pixels), *args))


def _changed_plane(plane: Pixels, name: str, args: tuple[float, ...]) -> Pixels:
    """One channel [H, W]: tables are interpolated between levels, filters act on whole levels."""
    levels = plane.round().astype(np.uint8)
    gray = np.repeat(levels[..., None], 3, 2)
    table = _table(gray, name.removesuffix("Increasing"), *args)
    if table is not None:
        row = np.atleast_2d(table)[0].clip(0, 255)
        mapped: Pixels = np.interp(plane, _LEVELS, row)
        return mapped.astype(plane.dtype)
    changed: Pixels = _by_pillow(gray, name, args)[..., 0] + (plane - levels)
    return changed.clip(0, 255).astype(plane.dtype)


def _table(pixels: Pixels, name: str, amount: float = 0.0) -> NDArray[np.number] | None:
    """The new value of each level, [256] or by channel [3, 256], as Pillow computes it."""
    match name:
        case "Invert":
            return 255 - _LEVELS
        case "Posterize" | "PosterizeOriginal":
            bits = max(int(amount), 1)  # to 0 bits is black, and an error in newer Pillow
            return _LEVELS & -(1 << max(8 - bits, 0))
        case "Solarize":
            return np.where(amount > _LEVELS, _LEVELS, 255 - _LEVELS)
        case "SolarizeAdd":
            return np.where(_LEVELS < 128, _LEVELS + int(amount), _LEVELS)
        case "Brightness":
            return _blend(0, amount)
        case "Contrast":
            gray = np.asarray(Image.fromarray(pixels).convert("L"))
            return _blend(int(gray.mean() + 0.5), amount)
        case "AutoContrast":
            darkest, lightest = pixels.min(0).min(0), pixels.max(0).max(0)
            return np.stack([_stretch(*ends) for ends in zip(darkest, lightest, strict=True)])
        case "Equalize":
            counts = np.array(Image.fromarray(pixels).histogram())
            return np.stack([_equalize(channel) for channel in counts.reshape(3, 256)])
        case _:
            return None


def _blend(gray: int, factor: float) -> NDArray[np.number]:
    """From a gray (factor 0) to the level itself (1) and beyond; Pillow computes in float32."""
    return np.float32(factor) * (_LEVELS - gray).astype(np.float32) + np.float32(gray)


def _stretch(darkest: np.uint8, lightest: np.uint8) -> NDArray[np.number]:
    low, high = int(darkest), int(lightest)
    if low >= high:
        return _LEVELS
    scale = 255.0 / (high - low)
    return _LEVELS * scale - low * scale


def _equalize(counts: NDArray[np.int64]) -> NDArray[np.number]:
    """Levels spread by the share of pixels below them; of `counts` [256] pixels at each level."""
    step = (counts.sum() - counts[counts.nonzero()[0][-1]]) // 255
    return _LEVELS if step == 0 else (step // 2 + counts.cumsum() - counts) // step


def _translated(pixels: Pixels, table: Pixels) -> Pixels:
    """The entry of `table` [256], or of each channel's [3, 256], for every byte."""
    if table.ndim == 1:
        return np.frombuffer(bytearray(pixels).translate(table.tobytes()), np.uint8).reshape(
            pixels.shape
        )
    out = np.empty_like(pixels)
    for channel, row in enumerate(table):
        plane = pixels[..., channel].tobytes().translate(row.tobytes())
        out[..., channel] = np.frombuffer(plane, np.uint8).reshape(pixels.shape[:2])
    return out
