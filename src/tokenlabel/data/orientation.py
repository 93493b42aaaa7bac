"""The eight EXIF orientations of an image, for its pixels, its masks and its boxes alike."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenlabel.geometry import Box

__all__ = [
    "EXIF_TAG",
    "UPRIGHT",
    "orientation_of",
    "turned",
    "turned_box",
    "turned_like",
    "turned_size",
]

UPRIGHT = 1
EXIF_TAG = 0x0112  # of the orientation
_TRANSPOSED = (5, 6, 7, 8)  # rows and columns change places, and then
_MIRRORED = (2, 3, 6, 7)  # left and right do,
_INVERTED = (3, 4, 7, 8)  # and top and bottom

Number = TypeVar("Number", bound=np.generic)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened image, 1 to 8; 1, upright, where it says none."""
    try:
        value = image.getexif().get(EXIF_TAG, UPRIGHT)
    except Exception:  # of a damaged EXIF block, which says nothing then
        return UPRIGHT
    return value if isinstance(value, int) and 1 <= value <= 8 else UPRIGHT


def turned(stored: NDArray[Number], orientation: int) -> NDArray[Number]:
    """An array [H, W, ...] as it is to be looked at, of one as it is stored."""
    shown = stored.swapaxes(0, 1) if orientation in _TRANSPOSED else stored
    shown = shown[:, ::-1] if orientation in _MIRRORED else shown
    return np.ascontiguousarray(shown[::-1] if orientation in _INVERTED else shown)


def turned_like(
    mask: NDArray[Number], stored: tuple[int, int], orientation: int
) -> NDArray[Number]:
    """A mask [H, W] in the frame of its image as it is to be looked at.

    `stored` is the size of the stored image. Masks are turned with it; one that is of the turned
    image's size already, and not of the stored one's, stays as it is.
    """
    shown = turned_size(stored, orientation)
    if mask.shape == shown and shown != stored:
        return mask
    return turned(mask, orientation)


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(height, width) as it is to be looked at, of that of the stored image."""
    return (size[1], size[0]) if orientation in _TRANSPOSED else size


def turned_box(box: Box, orientation: int) -> Box:
    """The place in the image as it is to be looked at, of a box in the stored image."""
    x0, y0, x1, y1 = box.as_tuple()
    if orientation in _TRANSPOSED:
        x0, y0, x1, y1 = y0, x0, y1, x1
    if orientation in _MIRRORED:
        x0, x1 = 1 - x1, 1 - x0
    if orientation in _INVERTED:
        y0, y1 = 1 - y1, 1 - y0
    return Box(x0, y0, x1, y1)
