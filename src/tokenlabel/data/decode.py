"""From encoded bytes to pixels: HWC uint8 RGB arrays."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from tokenlabel.errors import InputError

__all__ = ["decode_image", "image_size"]

Pixels = NDArray[np.uint8]

_JPEG_MAGIC = b"\xff\xd8\xff"


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) of an encoded image, from its header. Raises InputError naming `name`."""
    if data.startswith(_JPEG_MAGIC):
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            return height, width
        except ValueError:
            pass  # Pillow forgives more, and explains better
    with _opened(data, name) as image:
        return image.height, image.width


def decode_image(
    data: bytes, name: str, *, fast: bool = False, at_least: tuple[int, int] = (0, 0)
) -> Pixels:
    """Decode an image file to RGB pixels, uint8 [H, W, 3].

    Grey, palette, 16-bit and CMYK images are converted; transparency is dropped; the EXIF
    orientation is *not* applied, as in timm and torchvision: sizes are those of the header.

    `fast` trades a last bit of JPEG accuracy for speed; with `at_least` = (height, width) a large
    JPEG may come out at a reduced scale, no smaller than this. Raises InputError naming `name`.
    """
    if data.startswith(_JPEG_MAGIC):
        try:
            height, width = at_least
            pixels: Pixels = simplejpeg.decode_jpeg(
                data,
                "RGB",
                fastdct=fast,
                fastupsample=fast,
                min_height=height,
                min_width=width,
                min_factor=2
                if min(at_least) > 0
                else 1,  # factors below 2 cost more than they save
            )
            return pixels
        except ValueError:
            pass  # CMYK, or slightly damaged: Pillow reads it
    with _opened(data, name) as image:
        try:
            if image.mode.startswith("I;16") or image.mode == "I":
                wide = np.asarray(image).astype(np.uint16) >> 8
                return np.repeat(wide.astype(np.uint8)[..., None], 3, axis=2)
            return np.array(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise _unreadable(name, error) from error


def _opened(data: bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> InputError:
    reason = str(error).split(" <")[0]
    return InputError(f"cannot read image {name}: {reason}; repair it or leave it out")
