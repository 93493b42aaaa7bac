"""From encoded bytes to pixels, by the rules that hold for a data set."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile

from tokenlabel.data.levels import (
    ARRAY_MAGIC,
    UnreadableError,
    array_kind,
    gray_of,
    read_array,
    scaled,
    with_channels,
)
from tokenlabel.data.orientation import UPRIGHT, orientation_of, turned, turned_size
from tokenlabel.data.rules import AS_STORED, DecodeRules
from tokenlabel.errors import InputError
from tokenlabel.geometry.render import Pixels

__all__ = [
    "CUT_OFF",
    "JPEG_MAGIC",
    "Header",
    "decode_image",
    "decode_mask",
    "decode_picture",
    "deep_values",
    "image_size",
    "is_mask_mode",
    "orientation_by",
    "pixels_by",
    "read_header",
]

MAX_PIXELS_VARIABLE = "TOKENLABEL_MAX_PIXELS"
_MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)  # where Pillow itself refuses

JPEG_MAGIC = b"\xff\xd8\xff"
_PNG_MAGIC = b"\x89PNG"
_PNG_ORIENTATIONS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")  # what may say one
_COLORS = {1: ("GRAY", "L"), 3: ("RGB", "RGB")}  # of so many channels: simplejpeg's and Pillow's
_AS_THEY_ARE = ("L", "LA", "RGB", "RGBA", "CMYK")  # Pillow's modes whose channels are the image's


CUT_OFF = ";16, of which the upper 8 bits are read"
"""In a header's mode: of TIFFs of deep colors, which nothing here decodes as they are."""


class Header(NamedTuple):
    """What a file says of its image before its pixels are decoded."""

    mode: str  # Pillow's; of deep colors with their bits ("RGB;16"); of arrays "uint16 x 4"
    size: tuple[int, int]  # (height, width) as it is stored
    orientation: int  # EXIF's, 1 to 8


def read_header(data: bytes, name: str) -> Header:
    """Mode, size and orientation of an encoded image. Raises InputError naming `name`."""
    if data.startswith(ARRAY_MAGIC):
        (height, width, channels), kind = array_kind(data, name)
        _require_few_pixels(height, width, name)
        return Header(f"{kind.name} x {channels}", (height, width), UPRIGHT)
    with _opened(data, name) as image:
        mode = image.mode
        if not _is_gray_deep(image) and _stores_16_bits(image):
            mode += ";16" if _is_deep(image) else CUT_OFF
        found = orientation_of(image) if _may_be_turned(data) else UPRIGHT
        return Header(mode, (image.height, image.width), found)


def image_size(data: bytes, name: str, rules: DecodeRules = AS_STORED) -> tuple[int, int]:
    """(height, width) of an encoded image, from its header. Raises InputError naming `name`."""
    size = _jpeg_size(data, name)
    if size is not None and rules.orientation == "ignore":
        return size
    _, size, orientation = read_header(data, name)
    return turned_size(size, orientation if rules.orientation == "apply" else UPRIGHT)


def decode_image(
    data: bytes,
    name: str,
    rules: DecodeRules = AS_STORED,
    *,
    fast: bool = False,
    at_least: tuple[int, int] = (0, 0),
    orientation: int | None = None,
) -> Pixels:
    """Decode an image file to pixels [H, W, C], by the rules of its data set: uint8, or float32 from 0
    to 255 where these are `deep`.

    Gray, palette and CMYK images are converted to what the rules want, 3 channels (RGB) or 1 (gray).
    Other counts must be those of the file, `.npy` arrays [H, W, C] mostly, or be chosen by the rules.
    Transparency is dropped, unless it is asked for as a fourth channel; of an animation the first
    frame is taken.

    `fast` trades a last bit of JPEG accuracy for speed; with `at_least` = (height, width) a large
    JPEG may come out at a reduced scale, no smaller than this. `orientation` is `orientation_by` of
    the same, where it is known. Raises InputError naming `name`, for images of more pixels than
    `TOKENLABEL_MAX_PIXELS` (environment) allows before decoding them.
    """
    if orientation is None:
        orientation = orientation_by(data, name, rules)
    color = _COLORS.get(rules.channels) if rules.chosen is None else None
    if color is not None and _jpeg_size(data, name) is not None:
        height, width = turned_size(at_least, orientation)
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(
                data,
                color[0],
                fastdct=fast,
                fastupsample=fast,
                min_height=height,
                min_width=width,
                # factors below 2 cost more than they save
                min_factor=2 if min(at_least) > 0 else 1,
            )
            pixels = pixels.astype(np.float32) if rules.deep else pixels
            return turned(pixels, orientation) if orientation != UPRIGHT else pixels
        except ValueError:
            pass  # CMYK, or slightly damaged: Pillow reads it
    pixels = pixels_by(rules, _values(data, name, color and color[1]), name)
    return turned(pixels, orientation) if orientation != UPRIGHT else pixels


def orientation_by(data: bytes, name: str, rules: DecodeRules) -> int:
    """The EXIF orientation by which the rules turn an encoded image, 1 to 8; 1 where they do not.

    Raises InputError naming `name`.
    """
    return read_header(data, name).orientation if rules.orientation == "apply" else UPRIGHT


def pixels_by(rules: DecodeRules, values: NDArray[Any], name: str) -> Pixels:
    """Values [H, W, C] as the pixels that the rules make of them. Raises InputError naming `name`."""
    values = with_channels(values, rules.channels, name, rules.chosen)
    if values.dtype == np.uint8:
        return values.astype(np.float32) if rules.deep else values
    found = rules.floats if values.dtype.kind == "f" else rules.integers
    return scaled(values, found, deep=rules.deep)


def decode_picture(
    data: bytes, name: str, rules: DecodeRules = AS_STORED, **options: Any
) -> NDArray[np.uint8]:
    """Decode an image file for people: RGB, uint8 [H, W, 3], whatever model the rules are for.

    Of an array of more channels the first three, or of those that the rules choose; of two the first.
    """
    shown = replace(rules, channels=3, deep=False)
    chosen: tuple[int, ...] | None = None
    if data.startswith(ARRAY_MAGIC):
        channels = array_kind(data, name)[0][2]
        every = rules.chosen or range(channels)
        chosen = tuple(every[: 3 if len(every) > 2 else 1])
    return decode_image(data, name, replace(shown, chosen=chosen), **options)


def decode_mask(data: bytes, name: str) -> NDArray[np.int64]:
    """The numbers [H, W] of a mask as they are stored: gray levels (up to 16 bits) or palette indices.

    Raises InputError naming `name` for color pictures and for values outside 0 to 65535.
    """
    with _opened(data, name, "mask") as image:
        if not is_mask_mode(image.mode):
            raise InputError(
                f"mask {name} is a color picture ({image.mode}): a mask holds one class number a"
                " pixel, as a gray or palette PNG"
            )
        try:
            values: NDArray[np.int64] = np.array(image).astype(np.int64)
        except Exception as error:
            raise _unreadable(name, error, "mask") from error
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"mask {name} holds values outside 0 to 65535: it is not a class mask")
    return values


def is_mask_mode(mode: str) -> bool:
    """Whether pictures of a mode (see `Header`) hold one number a pixel, as masks do."""
    return mode in ("1", "L", "P") or mode.startswith("I")


# -- values ----------------------------------------------------------------------------------------


def deep_values(data: bytes, name: str) -> NDArray[Any] | None:
    """The values [H, W, C] of an image of more than 8 bits or of floats; None of any other."""
    if data.startswith(ARRAY_MAGIC):
        _, kind = array_kind(data, name)
        return None if kind == np.uint8 else _values(data, name, None)
    with _opened(data, name) as image:
        try:
            return _deep(data, image)
        except Exception as error:
            raise _unreadable(name, error) from error


def _values(data: bytes, name: str, mode: str | None) -> NDArray[Any]:
    """The values [H, W, C] of a file, an array's as they are; pictures as `mode` ("L" or "RGB", which
    have no transparency), or (None) with all channels that they have."""
    if data.startswith(ARRAY_MAGIC):
        read_header(data, name)
        return read_array(data, name)
    with _opened(data, name) as image:
        try:
            values = _deep(data, image)
            if values is None:
                own = image.mode if image.mode in _AS_THEY_ARE else "RGB"
                plain = np.array(image.convert(mode or own))
                return plain if plain.ndim == 3 else plain[..., None]
        except Exception as error:  # whatever a format's reader raises for damaged data
            raise _unreadable(name, error) from error
    if mode is not None:
        values = values[..., : 3 if values.shape[2] >= 3 else 1]  # no transparency
    return gray_of(values) if mode == "L" and values.shape[2] == 3 else values


def _is_deep(image: Image.Image) -> bool:
    """Whether an opened image has more than 8 bits a channel; Pillow itself would cut them off."""
    return _is_gray_deep(image) or (image.format == "PNG" and _stores_16_bits(image))


def _is_gray_deep(image: Image.Image) -> bool:
    """Whether it has one of Pillow's own modes of more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def _stores_16_bits(image: Image.Image) -> bool:
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    return any(";16" in str(tile[3]) for tile in tiles)


def _deep(data: bytes, image: Image.Image) -> NDArray[Any] | None:
    if not _is_deep(image):
        return None
    if _is_gray_deep(image):
        return np.array(image)[..., None]
    # Pillow has no mode for deep colors, and torchvision's decoder is rarely needed: not at the top
    from torchvision.io import ImageReadMode
    from torchvision.io import decode_image as decode_tensor

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    values = decode_tensor(encoded, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    return np.asarray(values)


# -- files -----------------------------------------------------------------------------------------


def _jpeg_size(data: bytes, name: str) -> tuple[int, int] | None:
    """(height, width) of what simplejpeg can decode, from its header."""
    if not data.startswith(JPEG_MAGIC):
        return None
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None  # Pillow forgives more, and explains better
    _require_few_pixels(height, width, name)
    return height, width


def _may_be_turned(data: bytes) -> bool:
    """Whether an orientation must be looked for: it may follow a PNG's pixels, which Pillow decodes."""
    return not data.startswith(_PNG_MAGIC) or any(name in data for name in _PNG_ORIENTATIONS)


def _opened(data: bytes, name: str, what: str = "image") -> Image.Image:
    limit = _max_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # the user has asked for more than Pillow allows
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise InputError(
            f"{what} {name} has more than {limit:,} pixels: make it smaller, leave it out, or allow"
            f" more with {MAX_PIXELS_VARIABLE} in the environment"
        ) from None
    except Exception as error:  # whatever a format's reader raises for damaged data
        raise _unreadable(name, error, what) from error
    _require_few_pixels(image.height, image.width, name, what)
    return image


def _require_few_pixels(height: int, width: int, name: str, what: str = "image") -> None:
    if height * width > _max_pixels():
        raise InputError(
            f"{what} {name} has {width}x{height} pixels, more than {_max_pixels():,}: make it"
            f" smaller, leave it out, or allow more with {MAX_PIXELS_VARIABLE} in the environment"
        )


def _max_pixels() -> int:
    given = os.environ.get(MAX_PIXELS_VARIABLE)
    if given is None:
        return _MAX_PIXELS
    if not given.isdecimal() or int(given) < 1:
        raise InputError(f"{MAX_PIXELS_VARIABLE} = {given!r}: give a number of pixels above 0")
    return int(given)


def _unreadable(name: str, error: Exception, what: str = "image") -> UnreadableError:
    reason = str(error).split(" <")[0] or type(error).__name__
    return UnreadableError(what, name, reason)
