"""Reading pairs: pixels, labels, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokenlabel.data.decode import decode_image, decode_mask, image_size
from tokenlabel.errors import InputError
from tokenlabel.segmentation.classes import ClassList, Labels
from tokenlabel.segmentation.pairs import Pair

__all__ = ["read_image", "read_labels", "read_pair"]


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB pixels [H, W, 3] of an image file; grey is repeated, transparency dropped."""
    return decode_image(_bytes(path, "image"), str(path))


def read_pair(pair: Pair, classes: ClassList) -> tuple[NDArray[np.uint8], Labels]:
    """Pixels [H, W, 3] and labels [H, W] (classes from 0, `IGNORED` where there is none).

    Raises InputError for files that cannot be read, masks that are no class numbers or hold other
    values than the class list knows, and sizes that differ.
    """
    image = read_image(pair.image)
    return image, _labels(pair, classes, (image.shape[0], image.shape[1]))


def read_labels(pair: Pair, classes: ClassList) -> Labels:
    """The labels of a pair, as of `read_pair`; of the image nothing but its size is read."""
    return _labels(pair, classes, image_size(_bytes(pair.image, "image"), str(pair.image)))


def _labels(pair: Pair, classes: ClassList, size: tuple[int, int]) -> Labels:
    """The labels of a pair whose image has `size` = (height, width)."""
    mask = decode_mask(_bytes(pair.mask, "mask"), str(pair.mask))
    labels = classes.decode(mask, str(pair.mask))
    if size != labels.shape:
        (height, width), (rows, cols) = size, labels.shape
        raise InputError(
            f"image {pair.image} has {width}x{height} pixels, but its mask {pair.mask} has"
            f" {cols}x{rows}: make the mask anew at the image's size"
        )
    return labels


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror}") from error
