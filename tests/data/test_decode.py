"""Any image file becomes HWC uint8 RGB, or a named error."""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile, PngInfo

from tokenlabel.data.decode import (
    decode_image,
    decode_mask,
    decode_picture,
    image_size,
    read_header,
)
from tokenlabel.data.open import open_source
from tokenlabel.data.orientation import turned, turned_box, turned_size
from tokenlabel.data.rules import DecodeRules
from tokenlabel.data.survey import is_constant, spread_indices, survey
from tokenlabel.errors import InputError
from tokenlabel.geometry import Box


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


@pytest.mark.parametrize(("bits", "shift"), [(8, 0), (12, 4), (16, 8)])
def test_deep_images_are_scaled_by_the_bits_they_hold(bits: int, shift: int) -> None:
    deep = np.linspace(0, 2**bits - 1, 200).astype(np.uint16).reshape(10, 20)
    for kind in ("PNG", "TIFF"):
        pixels = decode_image(saved(Image.fromarray(deep), kind), "deep")
        np.testing.assert_array_equal(pixels, np.repeat((deep >> shift)[..., None], 3, 2))
    wide = decode_image(saved(Image.fromarray(deep.astype(np.int32)), "TIFF"), "wide")  # mode I
    np.testing.assert_array_equal(wide[..., 2], deep >> shift)


def test_deep_colors_keep_their_bits() -> None:
    deep = np.random.default_rng(0).integers(0, 4096, (8, 9, 3)).astype(np.uint16)
    deep[0, 0] = 4095
    data = png16(deep)
    assert Image.open(io.BytesIO(data)).mode == "RGB"  # Pillow has cut them to the upper 8 bits
    np.testing.assert_array_equal(decode_image(data, "deep.png"), deep >> 4)
    assert read_header(data, "deep.png").mode == "RGB;16"


def png16(values: np.ndarray) -> bytes:
    """A PNG of three channels of 16 bits, which Pillow cannot write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def test_colors_that_pillow_cuts_off_are_told(tmp_path: Path) -> None:
    """A TIFF of three channels of 16 bits, as Pillow cannot write it either."""
    values = np.full((4, 5, 3), 0x1234, "<u2").tobytes()
    sizes = {256: 5, 257: 4, 258: 8 + len(values), 259: 1, 262: 2, 273: 8, 277: 3, 278: 4}
    tags = [(tag, 3 if tag == 258 else 1, value) for tag, value in sizes.items()]
    tags.append((279, 1, len(values)))
    head = struct.pack("<2sHI", b"II", 42, 14 + len(values))
    entries = b"".join(struct.pack("<HHII", tag, 4 - (tag == 258), *at) for tag, *at in tags)
    bits = struct.pack("<3H", 16, 16, 16)
    data = head + values + bits + struct.pack("<H", len(tags)) + entries + bytes(4)
    assert decode_image(data, "a.tif").max() == 0x12
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.tif").write_bytes(data)
    said = open_source(str(tmp_path)).found.line()
    assert (
        "1 of 1 images looked into are RGB;16, of which the upper 8 bits are read: convert" in said
    )


def test_a_data_set_has_one_range() -> None:
    """A dark image of a 12-bit data set stays dark; alone it would be taken for one of 8 bits."""
    dark = np.full((4, 4), 200, np.uint16)
    bright = np.full((4, 4), 4000, np.uint16)
    files = [saved(Image.fromarray(values), "PNG") for values in (dark, bright)]
    found = survey((str(i), lambda data=data: data) for i, data in enumerate(files))
    rules = found.rules()
    assert rules == DecodeRules(integers=(0, 4095), deep=True)
    assert found.modes == {"I;16": 2}
    first = replace(rules, deep=False)  # as of a run that kept 8 bits
    assert decode_image(files[0], "dark", first)[0, 0, 0] == 200 >> 4
    assert decode_image(files[0], "dark")[0, 0, 0] == 200
    clipped = saved(Image.fromarray(np.full((4, 4), 60000, np.uint16)), "PNG")
    for kept in (rules, first):
        assert decode_image(clipped, "beyond", kept)[0, 0, 0] == 255
        assert DecodeRules.of_dict(json.loads(json.dumps(kept.as_dict()))) == kept


@pytest.mark.parametrize(
    "written",
    [
        [],
        "x",
        {"integers": [1]},
        {"floats": 3},
        {"channels": "x"},
        {"chosen": 1},
        {"chosen": ["a"]},
    ],
)
def test_damaged_rules_are_one_line(written: Any) -> None:
    with pytest.raises(InputError, match=r"^the rules by which images were decoded are damaged"):
        DecodeRules.of_dict(written)


@pytest.mark.parametrize("channels", [1, 3])
def test_no_two_of_16_bits_become_one(channels: int) -> None:
    """All 65536 levels, and where they lie between black and white."""
    deep = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    rules = DecodeRules(integers=(0, 65535), channels=channels, deep=True)
    for data in (saved(Image.fromarray(deep), "PNG"), stored(deep)):
        pixels = decode_image(data, "deep", rules)
        assert (pixels.shape, pixels.dtype) == ((256, 256, channels), np.float32)
        np.testing.assert_allclose(pixels[..., -1], deep / 257.0, rtol=1e-6)
        assert len(np.unique(pixels)) == 2**16
    usual = decode_image(saved(gradient(), "JPEG"), "a.jpg", rules)  # 8 bits among those of 16
    assert usual.dtype == np.float32
    np.testing.assert_array_equal(usual, usual.round())


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_gray_is_one_channel_where_it_is_asked_for(kind: str) -> None:
    for mode in ("L", "RGB"):
        data = saved(gradient().convert(mode), kind)
        pixels = decode_image(data, "a", DecodeRules(channels=1))
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
        assert pixels.shape == (60, 90, 1)
        assert np.abs(pixels[..., 0].astype(int) - expected).max() <= 1


def test_deep_colors_become_gray_as_others_do() -> None:
    deep = np.full((4, 4, 3), 1000, np.uint16)
    deep[..., 1] = 3000
    gray = decode_image(png16(deep), "a", DecodeRules((0, 4095), channels=1, deep=True))
    np.testing.assert_allclose(gray, (0.413 * 1000 + 0.587 * 3000) / 4095 * 255, atol=0.1)


def test_a_fourth_channel_is_kept_where_it_is_asked_for() -> None:
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 4)).astype(np.uint8)
    data = saved(Image.fromarray(values, "RGBA"), "PNG")
    np.testing.assert_array_equal(decode_image(data, "a", DecodeRules(channels=4)), values)
    np.testing.assert_array_equal(decode_image(data, "a"), values[..., :3])
    last = decode_image(data, "a", DecodeRules(channels=1, chosen=(3,)))
    np.testing.assert_array_equal(last, values[..., 3:])


def stored(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.mark.parametrize("kind", [np.uint8, ">u2", np.float32])
def test_arrays_are_images_of_their_channels(kind: Any) -> None:
    values = np.arange(5 * 7 * 4).reshape(5, 7, 4)
    for order in ("C", "F"):
        data = stored(np.asarray(values, kind, order=order))
        assert image_size(data, "a.npy") == (5, 7)
        rules = replace(survey([("a", lambda data=data: data)]).rules(), channels=4)
        assert rules.deep == (kind != np.uint8)
        expected = values.astype(np.float32)  # all lie within 0 to 255, which is then their range
        np.testing.assert_allclose(decode_image(data, "a.npy", rules), expected, rtol=1e-6)
        some = replace(rules, channels=2, chosen=(3, 0))
        shown = decode_image(data, "a.npy", some)
        np.testing.assert_allclose(shown, expected[..., [3, 0]], rtol=1e-6)
        np.testing.assert_array_equal(decode_picture(data, "a.npy", rules), expected[..., :3])
        np.testing.assert_array_equal(decode_picture(data, "a.npy", some), expected[..., [3, 3, 3]])
    assert read_header(data, "a.npy").mode.endswith("x 4")


@pytest.mark.parametrize(
    ("values", "rules", "said"),
    [
        (np.zeros((2, 2, 4), np.uint8), DecodeRules(), r"has 4 channels, and the model takes 3: .*"
         r"\(--in-chans\), or choose 3 of them \(--channels\)"),
        (np.zeros((2, 2, 3), np.uint8), DecodeRules(channels=4), "has 3 channels, .* takes 4"),
        (np.zeros((2, 2, 4), np.uint8), DecodeRules(chosen=(1, 2, 4)), "has channels 0 to 3"),
        (np.zeros((2, 2, 2, 2)), DecodeRules(), "array of numbers"),
        (np.zeros((2, 0, 2)), DecodeRules(), "array of numbers"),
        (np.zeros((2, 2), bool), DecodeRules(), "array of numbers"),
        (np.array([{}]), DecodeRules(), "array of numbers"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_such_images_are_named(
    values: np.ndarray, rules: DecodeRules, said: str
) -> None:
    with pytest.raises(InputError, match=rf"image a\.npy.*{said}"):
        decode_image(stored(values), "a.npy", rules)


def test_damaged_arrays_are_named() -> None:
    data = stored(np.zeros((64, 64, 4), np.uint16))
    for damaged in (data[:7], data[:9], data[:40], data[:-1], data[:6] + b"\7\0" + data[8:]):
        with pytest.raises(
            InputError, match=r"image a\.npy: it (was cut short|is not a \.npy file)"
        ):
            decode_image(damaged, "a.npy", DecodeRules(channels=4))
    huge = data.replace(b"(64, 64, 4)", b"(1,1,99999)")
    unclosed = data.replace(b"(64, 64, 4)", b"[[[[ 64, 4)")
    for damaged in (huge, unclosed):
        assert damaged != data
        with pytest.raises(
            InputError, match=r"image a\.npy: it (was cut short|is not a \.npy file)"
        ):
            decode_picture(damaged, "a.npy")


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0), (-2.0, 7.0)])
def test_floats_are_scaled_not_blackened(low: float, high: float) -> None:
    values = np.linspace(low, high, 256).astype(np.float32).reshape(16, 16)
    pixels = decode_image(saved(Image.fromarray(values), "TIFF"), "float.tif")
    assert np.abs(pixels[..., 0].flatten().astype(int) - np.arange(256)).max() <= 1
    values[3, 3] = np.nan
    assert decode_image(saved(Image.fromarray(values), "TIFF"), "nan.tif").max() == 255


def test_values_that_are_no_numbers_spoil_no_range() -> None:
    values = np.linspace(2, 40, 12).astype(np.float32).reshape(3, 4)
    values[0, :3] = np.nan, np.inf, -np.inf
    files = [stored(values), stored(np.full((3, 4), np.nan, np.float32))]
    rules = survey((str(i), lambda data=data: data) for i, data in enumerate(files)).rules()
    assert rules.floats == (0, 255)
    assert decode_image(files[0], "a.npy", rules)[0, :3, 0].tolist() == [0, 255, 0]
    assert not decode_image(files[1], "b.npy", rules).any()
    for data in files:
        assert np.isfinite(decode_image(data, "a.npy")).all()


def test_constant_images_are_found() -> None:
    assert is_constant(np.full((9, 7, 3), 5))
    assert not is_constant(np.asarray(gradient()))


def test_what_cannot_be_read_is_counted() -> None:
    found = survey([("real", lambda: saved(gradient(), "PNG")), ("broken", lambda: b"hello")])
    assert (found.images, found.unreadable) == (1, 1)


def test_a_sample_is_spread_over_the_data_set() -> None:
    assert spread_indices(5) == [0, 1, 2, 3, 4]
    assert spread_indices(1000, 4) == [0, 250, 500, 750]
    assert spread_indices(0) == []


def test_reduced_scale_keeps_what_is_asked_for() -> None:
    data = saved(gradient(600, 900), "JPEG")
    assert decode_image(data, "a.jpg").shape[:2] == (600, 900)
    assert decode_image(data, "a.jpg", at_least=(500, 700)).shape[:2] == (600, 900)
    assert decode_image(data, "a.jpg", at_least=(300, 400)).shape[:2] == (300, 450)
    assert decode_image(data, "a.jpg", at_least=(80, 100)).shape[:2] == (150, 225)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_orientation_is_applied_where_asked_for(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(gradient(), kind, exif=exif)
    assert decode_image(data, "a").shape == (60, 90, 3)
    assert image_size(data, "a") == (60, 90)
    rules = DecodeRules(orientation="apply")
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    shown = decode_image(data, "a", rules)
    assert image_size(data, "a", rules) == shown.shape[:2] == expected.shape[:2]
    assert np.abs(shown.astype(int) - expected).max() <= 1
    assert read_header(data, "a").orientation == orientation


def test_a_pngs_header_is_read_without_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless what may turn it is there, in front of the pixels or behind them."""
    load, loaded = PngImageFile.load, []

    def counted(image: PngImageFile) -> Any:
        loaded.append(image)
        return load(image)

    monkeypatch.setattr(PngImageFile, "load", counted)
    plain = saved(gradient(), "PNG")
    loaded.clear()
    assert read_header(plain, "a") == ("RGB", (60, 90), 1)
    assert not loaded
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes()
    chunk = b"eXIf" + content
    chunk = struct.pack(">I", len(content)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    end = plain.index(b"IEND") - 4
    assert read_header(plain[:end] + chunk + plain[end:], "a").orientation == 6
    written = PngInfo()
    written.add_itxt("XML:com.adobe.xmp", '<rdf tiff:Orientation="8"/>')
    assert read_header(saved(gradient(), "PNG", pnginfo=written), "a").orientation == 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_their_image(orientation: int) -> None:
    stored = np.zeros((20, 40), np.uint8)
    stored[2:7, 8:30] = 1
    shown = turned(stored, orientation)
    assert turned_size(stored.shape, orientation) == shown.shape
    box = turned_box(Box.from_pixels(8, 2, 22, 5, stored.shape), orientation)
    rows, cols = np.nonzero(shown)
    found = (cols.min() / shown.shape[1], rows.min() / shown.shape[0])
    ends = ((cols.max() + 1) / shown.shape[1], (rows.max() + 1) / shown.shape[0])
    assert box.as_tuple() == pytest.approx((*found, *ends))


def test_reduced_scale_is_turned_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(gradient(600, 900), "JPEG", exif=exif)
    rules = DecodeRules(orientation="apply")
    assert decode_image(data, "a.jpg", rules, at_least=(400, 300)).shape[:2] == (450, 300)


def test_pixels_are_limited_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        data = saved(gradient(), kind)
        monkeypatch.setenv("TOKENLABEL_MAX_PIXELS", "5399")
        for read in (decode_image, image_size):
            with pytest.raises(InputError, match="a has 90x60 pixels, more than 5,399"):
                read(data, "a")
        monkeypatch.setenv("TOKENLABEL_MAX_PIXELS", "5400")
        assert decode_image(data, "a").shape == (60, 90, 3)
    monkeypatch.setenv("TOKENLABEL_MAX_PIXELS", "many")
    with pytest.raises(InputError, match="TOKENLABEL_MAX_PIXELS = 'many'"):
        decode_image(data, "a")


def test_the_limit_is_pillows_for_all_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENLABEL_MAX_PIXELS", raising=False)
    flat = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))
    frame = flat.index(b"\xff\xc0") + 5  # height and width of the first frame
    huge = flat[:frame] + struct.pack(">HH", 30000, 30000) + flat[frame + 4 :]
    with pytest.raises(InputError, match="30000x30000 pixels"):
        decode_image(huge, "a.jpg")


def test_masks_are_numbers_not_levels() -> None:
    numbers = np.array([[0, 1, 300], [65535, 7, 7]])
    deep = saved(Image.fromarray(numbers.astype(np.uint16)), "PNG")
    np.testing.assert_array_equal(decode_mask(deep, "m.png"), numbers)
    palette = Image.fromarray(np.array([[0, 3], [2, 1]], np.uint8)).convert("P")
    palette.putpalette([9, 9, 9] * 256)
    np.testing.assert_array_equal(decode_mask(saved(palette, "PNG"), "m"), [[0, 3], [2, 1]])
    two = Image.fromarray(np.array([[True, False]]))
    np.testing.assert_array_equal(decode_mask(saved(two, "PNG"), "m"), [[1, 0]])
    with pytest.raises(InputError, match=r"mask m\.png is a color picture \(RGB\)"):
        decode_mask(saved(gradient(), "PNG"), "m.png")
    with pytest.raises(
        InputError, match=r"cannot read mask m\.png: .*; repair or remove the file$"
    ):
        decode_mask(b"hello", "m.png")


def test_damaged_files_are_named() -> None:
    good = saved(gradient(), "JPEG")
    for data in (b"", b"hello", good[:200], good[: len(good) // 2], saved(gradient(), "PNG")[:150]):
        with pytest.raises(InputError, match=r"^cannot read image cat/7\.jpg: .*doctor --data DIR"):
            decode_image(data, "cat/7.jpg")
    with pytest.raises(InputError, match=r"cannot read image cat/7\.jpg"):
        image_size(b"hello", "cat/7.jpg")
    assert decode_image(good + b"trailing bytes", "a.jpg").shape == (60, 90, 3)
