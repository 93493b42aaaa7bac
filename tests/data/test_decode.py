"""Any image file becomes HWC uint8 RGB, or a named error."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tokenlabel.data.decode import decode_image, image_size
from tokenlabel.errors import InputError


def gradient(height: int = 60, width: int = 90) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], -1)
    return Image.fromarray(pixels.astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_equals_pillow(mode: str) -> None:
    data = saved(gradient().convert(mode), "JPEG", quality=90)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    pixels = decode_image(data, "a.jpg")
    assert pixels.shape == (60, 90, 3)
    assert pixels.dtype == np.uint8
    assert image_size(data, "a.jpg") == (60, 90)
    assert np.abs(pixels.astype(int) - expected).max() <= 1
    fast = decode_image(data, "a.jpg", fast=True)
    assert np.abs(fast.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "1"])
def test_png_equals_pillow(mode: str) -> None:
    data = saved(gradient().convert(mode), "PNG")
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data, "a.png"), expected)
    assert image_size(data, "a.png") == (60, 90)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = np.linspace(0, 65535, 200).astype(np.uint16).reshape(10, 20)
    pixels = decode_image(saved(Image.fromarray(deep), "PNG"), "deep.png")
    np.testing.assert_array_equal(pixels[..., 1], deep >> 8)


def test_reduced_scale_keeps_what_is_asked_for() -> None:
    data = saved(gradient(600, 900), "JPEG")
    assert decode_image(data, "a.jpg").shape[:2] == (600, 900)
    assert decode_image(data, "a.jpg", at_least=(500, 700)).shape[:2] == (600, 900)
    assert decode_image(data, "a.jpg", at_least=(300, 400)).shape[:2] == (300, 450)
    assert decode_image(data, "a.jpg", at_least=(80, 100)).shape[:2] == (150, 225)


def test_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(gradient(), "JPEG", exif=exif)
    assert decode_image(data, "a.jpg").shape == (60, 90, 3)


def test_damaged_files_are_named() -> None:
    good = saved(gradient(), "JPEG")
    for data in (b"", b"hello", good[:200], good[: len(good) // 2], saved(gradient(), "PNG")[:150]):
        with pytest.raises(InputError, match=r"cannot read image cat/7\.jpg"):
            decode_image(data, "cat/7.jpg")
    with pytest.raises(InputError, match=r"cannot read image cat/7\.jpg"):
        image_size(b"hello", "cat/7.jpg")
    assert decode_image(good + b"trailing bytes", "a.jpg").shape == (60, 90, 3)
