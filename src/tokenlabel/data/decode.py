"""From encoded bytes to pixels, by the rules that hold for a data set."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile

from tokenlabel.choices import Orientation
from tokenlabel.data.orientation import UPRIGHT, orientation_of, turned, turned_size
from tokenlabel.errors import InputError

__all__ = [
    "AS_STORED",
    "JPEG_MAGIC",
    "DecodeRules",
    "Header",
    "Orientation",
    "ValueRange",
    "decode_image",
    "decode_mask",
    "deep_values",
    "image_size",
    "read_header",
    "value_range",
]

Pixels = NDArray[np.uint8]
ValueRange = tuple[float, float]

MAX_PIXELS_VARIABLE = "TOKENLABEL_MAX_PIXELS"
_MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)  # where Pillow itself refuses

JPEG_MAGIC = b"\xff\xd8\xff"
_DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits of the sensors and files that there are


@dataclass(frozen=True)
class DecodeRules:
    """How the images of a data set become pixels; found once, and kept with all that is made of them.

    - `integers`, `floats`: the values of images of more than 8 bits, and of floating-point images,
      that become black and white. None: those of each image by itself (see `value_range`).
    - `orientation`: whether EXIF orientations are applied, to images, masks and boxes alike.
    """

    integers: ValueRange | None = None
    floats: ValueRange | None = None
    orientation: Orientation = "ignore"

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `of_dict` reads it."""
        return {
            "integers": self.integers and list(self.integers),
            "floats": self.floats and list(self.floats),
            "orientation": self.orientation,
        }

    def filled(self, found: DecodeRules) -> DecodeRules:
        """Those that a model was trained by, for data in which others were `found`: ranges that
        these do not say, and the orientation that was chosen, are of `found`."""
        return DecodeRules(
            self.integers or found.integers, self.floats or found.floats, found.orientation
        )

    @classmethod
    def of_dict(cls, written: dict[str, Any]) -> DecodeRules:
        integers, floats = written.get("integers"), written.get("floats")
        return cls(
            integers and (float(integers[0]), float(integers[1])),
            floats and (float(floats[0]), float(floats[1])),
            written.get("orientation", "ignore"),
        )


AS_STORED = DecodeRules()
"""Each image by itself, as it is stored."""


class Header(NamedTuple):
    """What a file says of its image before its pixels are decoded."""

    mode: str  # Pillow's; of deep color images with the bits a channel ("RGB;16")
    size: tuple[int, int]  # (height, width) as it is stored
    orientation: int  # EXIF's, 1 to 8


def read_header(data: bytes, name: str) -> Header:
    """Mode, size and orientation of an encoded image. Raises InputError naming `name`."""
    with _opened(data, name) as image:
        deep = _is_deep(image) and image.mode not in ("I", "F") and not image.mode.startswith("I;")
        mode = f"{image.mode};16" if deep else image.mode
        return Header(mode, (image.height, image.width), orientation_of(image))


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
) -> Pixels:
    """Decode an image file to RGB pixels, uint8 [H, W, 3], by the rules of its data set.

    Gray, palette and CMYK images are converted, deeper ones scaled to 8 bits; transparency is
    dropped; of an animation the first frame is taken.

    `fast` trades a last bit of JPEG accuracy for speed; with `at_least` = (height, width) a large
    JPEG may come out at a reduced scale, no smaller than this. Raises InputError naming `name`, for
    images of more pixels than `TOKENLABEL_MAX_PIXELS` (environment) allows before decoding them.
    """
    orientation = UPRIGHT
    if rules.orientation == "apply":
        orientation = read_header(data, name).orientation
    if _jpeg_size(data, name) is not None:
        height, width = turned_size(at_least, orientation)
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(
                data,
                "RGB",
                fastdct=fast,
                fastupsample=fast,
                min_height=height,
                min_width=width,
                # factors below 2 cost more than they save
                min_factor=2 if min(at_least) > 0 else 1,
            )
            return turned(pixels, orientation) if orientation != UPRIGHT else pixels
        except ValueError:
            pass  # CMYK, or slightly damaged: Pillow reads it
    with _opened(data, name) as image:
        try:
            values = _deep(data, image)
            pixels = np.array(image.convert("RGB")) if values is None else _to_bytes(values, rules)
        except Exception as error:  # whatever a format's reader raises for damaged data
            raise _unreadable(name, error) from error
    return turned(pixels, orientation) if orientation != UPRIGHT else pixels


def decode_mask(data: bytes, name: str) -> NDArray[np.int64]:
    """The numbers [H, W] of a mask as they are stored: gray levels (up to 16 bits) or palette indices.

    Raises InputError naming `name` for color pictures and for values outside 0 to 65535.
    """
    with _opened(data, name, "mask") as image:
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise InputError(
                f"mask {name} is a color picture ({image.mode}): a mask holds one class number a"
                " pixel, as a gray or palette PNG"
            )
        try:
            values: NDArray[np.int64] = np.array(image).astype(np.int64)
        except Exception as error:
            raise _unreadable(name, error, "mask") from error
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"mask {name} holds values outside 0 to 65535: it is no class mask")
    return values


# -- value ranges ----------------------------------------------------------------------------------


def deep_values(data: bytes, name: str) -> NDArray[Any] | None:
    """The values [H, W, C] of an image of more than 8 bits or of floats; None of any other."""
    with _opened(data, name) as image:
        try:
            return _deep(data, image)
        except Exception as error:
            raise _unreadable(name, error) from error


def value_range(low: float, high: float, *, floats: bool) -> ValueRange:
    """The black and the white of a data set whose values lie from `low` to `high`.

    Integers: 0 and the largest value of the least usual bit depth that holds them (12 bits: 4095).
    Floats: 0 to 1, or 0 to 255, where all values lie there. Else the least and the largest value.
    """
    if low >= 0:
        whites = (1.0, 255.0) if floats else tuple(2.0**bits - 1 for bits in _DEPTHS)
        white = next((white for white in whites if high <= white), None)
        if white is not None:
            return 0.0, white
    return low, high


def _is_deep(image: Image.Image) -> bool:
    """Whether an opened image has more than 8 bits a channel; Pillow itself would cut them off."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return True
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) and image.format == "PNG" else []
    return any(";16" in str(tile[3]) for tile in tiles)


def _deep(data: bytes, image: Image.Image) -> NDArray[Any] | None:
    if not _is_deep(image):
        return None
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return np.array(image)[..., None]
    # Pillow has no mode for deep colors, and torchvision's decoder is rarely needed: not at the top
    from torchvision.io import ImageReadMode
    from torchvision.io import decode_image as decode_tensor

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    values = decode_tensor(encoded, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    return np.asarray(
        values[..., :3] if values.shape[2] >= 3 else values[..., :1]
    )  # no transparency


def _to_bytes(values: NDArray[Any], rules: DecodeRules) -> Pixels:
    """Values [H, W, 1 or 3] as levels [H, W, 3]: by whole bits where these are integers."""
    floats = values.dtype.kind == "f"
    values = np.nan_to_num(values) if floats else values
    found = rules.floats if floats else rules.integers
    low, high = found or value_range(float(values.min()), float(values.max()), floats=floats)
    shifted = values.astype(np.float64) - low
    if floats:
        levels = np.rint(shifted * (255 / max(high - low, 1e-12)))
    else:
        levels = np.floor(shifted * (256 / (high - low + 1)))
    return np.ascontiguousarray(
        np.broadcast_to(levels.clip(0, 255).astype(np.uint8), (*values.shape[:2], 3))
    )


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


def _unreadable(name: str, error: Exception, what: str = "image") -> InputError:
    reason = str(error).split(" <")[0] or type(error).__name__
    return InputError(f"cannot read {what} {name}: {reason}; repair it or leave it out")
