"""Reading pairs: pixels, masks, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokenlabel.data.decode import Header, decode_image, decode_mask, is_mask_mode, read_header
from tokenlabel.data.orientation import UPRIGHT, turned_like, turned_size
from tokenlabel.data.rules import AS_STORED, DecodeRules
from tokenlabel.errors import InputError
from tokenlabel.geometry.render import Pixels
from tokenlabel.segmentation.classes import ClassList, Labels
from tokenlabel.segmentation.pairs import Pair, files_beside

__all__ = ["read_image", "read_mask", "read_pair", "without_masks"]


def read_image(path: Path, rules: DecodeRules = AS_STORED) -> Pixels:
    """The pixels [H, W, C] of an image file (`decode_image`)."""
    return decode_image(_bytes(path, "image"), str(path), rules)


def read_pair(
    pair: Pair, classes: ClassList, rules: DecodeRules = AS_STORED
) -> tuple[Pixels, Labels]:
    """Pixels [H, W, C] and labels [H, W] (classes from 0, `IGNORED` where there is none).

    Raises InputError for files that cannot be read, masks that are no class numbers or hold other
    values than the class list knows, and sizes that differ.
    """
    data = _bytes(pair.image, "image")
    mask = _mask(pair, read_header(data, str(pair.image)), rules)
    labels = classes.decode(mask, str(pair.mask))
    return decode_image(data, str(pair.image), rules), labels


def read_mask(pair: Pair, rules: DecodeRules = AS_STORED) -> tuple[NDArray[np.int64], Header]:
    """The mask values [H, W] of a pair, and the header of its image, whose pixels are not read."""
    header = read_header(_bytes(pair.image, "image"), str(pair.image))
    return _mask(pair, header, rules), header


def without_masks(images: Sequence[Path]) -> list[Path]:
    """Image files without the masks of others among them (layout "folder"); a color picture is none.

    Raises InputError for a file that has the name of a mask and cannot be read.
    """
    beside = files_beside(images)
    masks = {file for files in beside.values() for file in files if _is_mask(file)}
    return [path for path in images if path not in masks]


def _is_mask(file: Path) -> bool:
    return is_mask_mode(read_header(_bytes(file, "mask"), str(file)).mode)


def _mask(pair: Pair, header: Header, rules: DecodeRules) -> NDArray[np.int64]:
    """The values of a pair's mask in the frame of its image."""
    values = decode_mask(_bytes(pair.mask, "mask"), str(pair.mask))
    orientation = header.orientation if rules.orientation == "apply" else UPRIGHT
    values = turned_like(values, header.size, orientation)
    size = turned_size(header.size, orientation)
    if size != values.shape:
        (height, width), (rows, cols) = size, values.shape
        turn = turned_size(size, header.orientation) == values.shape
        fix = (
            f"the image carries the EXIF orientation {header.orientation}, which is not applied: ask"
            " for orientation apply"
            if turn
            else "make the mask anew at the image's size"
        )
        raise InputError(
            f"image {pair.image} has {width}x{height} pixels, but its mask {pair.mask} has"
            f" {cols}x{rows}: {fix}"
        )
    return values


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror}") from error
