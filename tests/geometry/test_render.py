"""Pixels and label maps see the same view; rendering equals Pillow's step-by-step operations."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from numpy.typing import NDArray
from PIL import Image

from tokenlabel.geometry import Box, View, render, resample
from tokenlabel.geometry.render import Interpolation

FILL = (10, 20, 30)
SIZE = (90, 120)  # of the source, (height, width)
ASPECT = SIZE[1] / SIZE[0]
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def ramp(rows: int, cols: int) -> NDArray[np.float64]:
    """x and y of each cell's centre, as fractions: [2, rows, cols]."""
    y, x = np.meshgrid(
        (np.arange(rows) + 0.5) / rows, (np.arange(cols) + 0.5) / cols, indexing="ij"
    )
    return np.stack([x, y])


def ramp_image(rows: int, cols: int) -> NDArray[np.uint8]:
    """An image whose red is x and whose green is y, in 1/240 above 10; blue marks content."""
    x, y = ramp(rows, cols)
    return np.stack([10 + 240 * x, 10 + 240 * y, np.full_like(x, 255)], -1).round().astype(np.uint8)


def photograph() -> Image.Image:
    """Smooth content without symmetry."""
    coarse = np.random.default_rng(5).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC)


def inner(width: float, height: float, x: float, y: float) -> Box:
    left, top = x * (1 - width), y * (1 - height)
    return Box(left, top, left + width, top + height)


views = st.builds(
    lambda turn, shear, shift, box, flip: (
        turn.then(shear).then(shift).then(View.crop(box)).then(flip)
    ),
    st.sampled_from([View.identity(), View.rotation(20, ASPECT), View.rotation(-75, ASPECT)]),
    st.sampled_from([View.identity(), View.shear(0.3, 0, ASPECT), View.shear(0, -0.2, ASPECT)]),
    st.builds(View.translation, st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)),
    st.builds(inner, *[st.floats(0.2, 1.0)] * 2, *[st.floats(0.0, 1.0)] * 2),
    st.sampled_from([View.identity(), View.hflip(), View.vflip()]),
)


@settings(deadline=None, max_examples=40)
@given(views, st.sampled_from([(48, 32), (64, 64)]), st.sampled_from(["bilinear", "bicubic"]))
@example(View.crop(Box(0.1, 0.2, 0.8, 0.7)).then(View.hflip()), (64, 64), "bilinear")
@example(View.crop(Box(0.1, 0.2, 0.8, 0.7)).then(View.vflip()), (48, 32), "bicubic")
@example(View.translation(0, 1 / 128), (48, 32), "bilinear")
def test_image_and_label_map_agree(
    view: View, size: tuple[int, int], interpolation: Interpolation
) -> None:
    """A token's mean colour says where it comes from; so does a map of coordinates, resampled."""
    grid = (4, 4)
    pixels = render(ramp_image(*SIZE), view, size, interpolation).astype(float)
    maps = torch.from_numpy(ramp(30, 40))
    where, covered = resample(maps, view, grid)
    by_token = pixels.reshape(4, size[0] // 4, 4, size[1] // 4, 3).mean((1, 3))
    shown = (by_token[..., :2] - 10) / 240
    centre = (where > 0.06).all(0) & (where < 0.94).all(0)  # the ramp is flat beyond the last cell
    valid = view.valid_pixels(size).reshape(4, size[0] // 4, 4, size[1] // 4).all((1, 3))
    compared = valid & centre.numpy()
    difference = np.abs(shown - where.numpy().transpose(1, 2, 0))[compared]
    # warps cut a grey level short, as Pillow's do: half of one on average, which is 0.002
    tolerance = np.full((*grid, 2), 0.006)
    # a pixel shows what its centre does, half of it may lie beside what a token covers
    pixel = np.abs(view.to_source[:, :2]) @ (1 / size[1], 1 / size[0])
    tolerance[covered.numpy() < 1 - 1e-6] += 0.25 * pixel
    assert (difference < tolerance[compared]).all()


@settings(deadline=None, max_examples=60)
@given(views, st.sampled_from([(48, 32), (7, 9)]))
@example(View.translation(0, 1 / 128), (48, 32))
@example(View.translation(1 / 64, 1 / 14), (7, 32))  # edges that go through the pixels' centres
@example(View.crop(Box(-3.0, 0.5, 4.0, 5.0)), (7, 9))
def test_pixels_with_valid_centres_and_no_others_show_content(
    view: View, size: tuple[int, int]
) -> None:
    white = np.full((*SIZE, 3), 255, np.uint8)
    shown = (render(white, view, size, fill=FILL) == 255).all(-1)
    np.testing.assert_array_equal(shown, view.valid_pixels(size))


@settings(deadline=None, max_examples=40)
@given(views)
def test_pixels_without_content_are_filled(view: View) -> None:
    size = (40, 56)
    pixels = render(ramp_image(*SIZE), view, size, fill=FILL)
    filled = (pixels == FILL).all(-1)
    valid = view.valid_pixels(size)
    shrunk = (
        valid[1:-1, 1:-1] & valid[2:, 1:-1] & valid[:-2, 1:-1] & valid[1:-1, 2:] & valid[1:-1, :-2]
    )
    assert filled[~valid].mean() > 0.98 if (~valid).any() else True
    assert not filled[1:-1, 1:-1][shrunk].any()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_and_flips_equal_pillow(interpolation: Interpolation) -> None:
    image = photograph()
    pixels = np.asarray(image)
    box = (13, 7, 101, 78)
    crop = View.crop(Box.from_pixels(13, 7, 88, 71, SIZE))
    for size in [(32, 24), (150, 140), (71, 88)]:
        expected = image.crop(box).resize((size[1], size[0]), FILTERS[interpolation])
        for view, turned in [
            (crop, expected),
            (crop.then(View.hflip()), expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
            (crop.then(View.vflip()), expected.transpose(Image.Transpose.FLIP_TOP_BOTTOM)),
        ]:
            difference = render(pixels, view, size, interpolation).astype(int) - np.asarray(turned)
            assert np.abs(difference).max() <= 2
        fractional = render(pixels, View.crop(Box(0.11, 0.2, 0.83, 0.77)), size, interpolation)
        edges = (0.11 * SIZE[1], 0.2 * SIZE[0], 0.83 * SIZE[1], 0.77 * SIZE[0])
        expected = image.resize((size[1], size[0]), FILTERS[interpolation], edges)
        assert np.abs(fractional.astype(int) - np.asarray(expected)).max() <= 2


def test_composed_operations_equal_pillow_one_by_one() -> None:
    image, kind = photograph(), Image.Resampling.BILINEAR
    shear = Image.Transform.AFFINE
    stepwise = image.rotate(25, kind, fillcolor=FILL)
    stepwise = stepwise.transform(stepwise.size, shear, (1, 0.3, 0, 0, 1, 0), kind, fillcolor=FILL)
    stepwise = stepwise.transform(stepwise.size, shear, (1, 0, 18, 0, 1, 0), kind, fillcolor=FILL)
    stepwise = stepwise.crop((10, 20, 110, 80)).resize((64, 48), kind)
    view = View.rotation(25, ASPECT).then(View.shear(0.3, 0, ASPECT))
    view = view.then(View.translation(-18 / SIZE[1], 0))
    view = view.then(View.crop(Box.from_pixels(10, 20, 100, 60, SIZE)))
    at_once = render(np.asarray(image), view, (48, 64), "bilinear", FILL)
    valid = view.valid_pixels((48, 64))
    assert 0.5 < valid.mean() < 1
    eroded = valid.copy()
    for axis in (0, 1):
        for shift in (-2, 2):
            eroded &= np.roll(valid, shift, axis)
    difference = np.abs(at_once.astype(int) - np.asarray(stepwise))
    assert difference[eroded].mean() < 1
    assert difference[eroded].max() < 12
    assert (at_once[~valid] == FILL).all(-1).mean() > 0.95


def test_strong_reduction_does_not_alias() -> None:
    """Thin stripes become an even grey, whether or not the view is slanted."""
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    for view in (View.identity(), View.rotation(3, 1.0)):
        middle = render(stripes, view, (32, 32))[8:-8, 8:-8]
        assert np.abs(middle.astype(int) - 127).max() <= 3


def test_views_beside_the_image_are_all_fill() -> None:
    image = ramp_image(*SIZE)
    beside = View.crop(Box(1.5, 0.0, 2.0, 0.5))
    for view in (beside, View.rotation(10, ASPECT).then(beside)):
        assert (render(image, view, (8, 8), fill=FILL) == FILL).all()


def test_rendering_leaves_the_source_alone() -> None:
    image = ramp_image(*SIZE)
    image.setflags(write=False)
    for view in (View.identity(), View.hflip(), View.rotation(10, ASPECT)):
        out = render(image, view, SIZE)
        assert out.flags.writeable
        assert out.flags.c_contiguous
        assert not np.shares_memory(out, image)


def test_thin_images() -> None:
    for size in [(1, 50), (50, 1), (1, 1)]:
        image = np.full((*size, 3), 77, np.uint8)
        for view in (View.identity(), View.crop(Box(0.2, 0.3, 0.7, 0.9)), View.rotation(5, 1.0)):
            assert render(image, view, (6, 4)).shape == (6, 4, 3)
        assert (render(image, View.identity(), (6, 4)) == 77).all()


@settings(deadline=None, max_examples=20)
@given(views, st.sampled_from([(48, 32), (150, 64)]), st.sampled_from(["bilinear", "bicubic"]))
def test_any_channels_and_depth_show_the_same(
    view: View, size: tuple[int, int], interpolation: Interpolation
) -> None:
    """Each channel as if it were one of RGB, and levels between those of bytes."""
    image = np.array(photograph())
    expected = render(image, view, size, interpolation, FILL).astype(float)
    four = render(image[..., [0, 1, 2, 1]], view, size, interpolation, (*FILL, FILL[1]))
    assert (four.shape, four.dtype) == ((*size, 4), np.uint8)
    assert np.abs(four[..., :3] - expected).max() <= 1
    np.testing.assert_array_equal(four[..., 3], four[..., 1])
    gray = render(image[..., :1].astype(np.float32), view, size, interpolation, FILL[0])
    assert (gray.shape, gray.dtype) == ((*size, 1), np.float32)
    assert np.abs(gray[..., 0] - expected[..., 0]).max() < 2  # bytes are rounded twice, and down
    assert 0 <= gray.min() <= gray.max() <= 255
    fine = render(image[..., :1] / np.float32(300), view, size, interpolation, 0)
    if len(np.unique(gray)) > 10:
        assert len(np.unique(fine)) > 0.3 * len(np.unique(gray))


@pytest.mark.parametrize("size", [(7, 9), (40, 30)])
def test_other_channels_equal_pillow_at_sharp_edges(size: tuple[int, int]) -> None:
    """Where bicubic filters reach beyond black and white, in a crop between pixels."""
    image = (np.indices((20, 24)).sum(0) // 3 % 2 * 255)[..., None].repeat(4, 2).astype(np.uint8)
    view = View.crop(Box(0.113, 0.07, 0.83, 0.91))
    colors = render(np.ascontiguousarray(image[..., :3]), view, size, "bicubic")
    np.testing.assert_array_equal(render(image, view, size, "bicubic")[..., :3], colors)
    deep = render(image.astype(np.float32), view, size, "bicubic")
    assert 0 <= deep.min() < deep.max() <= 255
    assert np.abs(deep[..., :3] - colors).mean() < 8  # bytes are cut off at black and white twice
