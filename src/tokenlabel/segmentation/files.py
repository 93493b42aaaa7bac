"""Reading pairs: pixels, labels, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenlabel.data.decode import decode_image
from tokenlabel.errors import InputError
from tokenlabel.segmentation.classes import ClassList, Labels
from tokenlabel.segmentation.pairs import Pair

__all__ = ["read_image", "read_labels", "read_pair"]

_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L")


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB pixels [H, W, 3] of an image file; grey is repeated, transparency dropped."""
    try:
        return decode_image(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"cannot read image {path}: {error.strerror}") from error


def read_pair(pair: Pair, classes: ClassList) -> tuple[NDArray[np.uint8], Labels]:
    """Pixels [H, W, 3] and labels [H, W] (classes from 0, `IGNORED` where there is none).

    Raises InputError for files that cannot be read, masks that are no class numbers or hold other
    values than the class list knows, and sizes that differ.
    """
    image = read_image(pair.image)
    return image, _labels(pair, classes, (image.shape[0], image.shape[1]))


def read_labels(pair: Pair, classes: ClassList) -> Labels:
    """The labels of a pair, as of `read_pair`; of the image nothing but its size is read."""
    try:
        with Image.open(pair.image) as image:
            size = (image.height, image.width)
    except OSError as error:
        reason = str(error).split(" '")[0]
        raise InputError(f"cannot read image {pair.image}: {reason}") from error
    return _labels(pair, classes, size)


def _labels(pair: Pair, classes: ClassList, size: tuple[int, int]) -> Labels:
    """The labels of a pair whose image has `size` = (height, width)."""
    labels = classes.decode(_read_mask(pair.mask), str(pair.mask))
    if size != labels.shape:
        (height, width), (rows, cols) = size, labels.shape
        raise InputError(
            f"image {pair.image} has {width}x{height} pixels, but its mask {pair.mask} has"
            f" {cols}x{rows}: make the mask anew at the image's size"
        )
    return labels


def _read_mask(path: Path) -> NDArray[np.integer]:
    try:
        with Image.open(path) as mask:
            if mask.mode in _WIDE_MODES:
                values = np.asarray(mask).astype(np.int64)
            elif mask.mode in ("L", "P"):
                values = np.asarray(mask)
            elif mask.mode == "1":
                values = np.asarray(mask.convert("L")) // 255
            else:
                raise InputError(
                    f"mask {path} is a colour picture ({mask.mode}): a mask holds one class number"
                    " a pixel, as a grey or palette PNG"
                )
    except (OSError, SyntaxError) as error:
        raise InputError(f"cannot read mask {path}: {str(error).split(' <')[0]}") from error
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"mask {path} holds values outside 0 to 65535: it is no class mask")
    return values
