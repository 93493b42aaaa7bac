"""Area averages of label maps against brute force."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import given, settings

from tokenlabel.geometry import Box, View, area_weights, resample


def interpolant(values: torch.Tensor, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear interpolation of a map [H, W] at fractions x, y of it; constant beyond the centres."""
    grid = torch.from_numpy(np.stack([x * 2 - 1, y * 2 - 1], -1))[None]
    sampled = torch.nn.functional.grid_sample(
        values[None, None].double(), grid, padding_mode="border", align_corners=False
    )
    return sampled[0, 0].numpy()


@given(
    st.integers(1, 9), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5)
)
def test_area_weights_are_the_integral_of_the_interpolant(
    cells: int, spans: list[tuple[float, float]]
) -> None:
    edges = np.array(spans) * cells
    weights = area_weights(edges, cells)
    assert weights.shape == (len(spans), cells)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    assert (weights >= -1e-12).all()
    fine = np.linspace(edges.min(1), edges.max(1), 4001)  # trapezoids
    hats = np.array(
        [
            np.interp(np.clip(fine, 0.5, cells - 0.5), np.arange(cells) + 0.5, row)
            for row in np.eye(cells)
        ]
    )
    expected = (hats[:, 1:] + hats[:, :-1]).mean(1) / 2
    np.testing.assert_allclose(weights, expected.T, atol=2e-5)


@settings(deadline=None, max_examples=30)
@given(
    st.tuples(st.floats(-0.4, 0.6), st.floats(-0.4, 0.6), st.floats(0.2, 1), st.floats(0.2, 1)),
    st.tuples(st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0.4, 0.6), st.floats(0.4, 0.6)),
    st.sampled_from([0.0, 17.0]),
    st.booleans(),
)
def test_tokens_are_area_averages(
    crop: tuple[float, ...], covered: tuple[float, ...], degrees: float, flip: bool
) -> None:
    """Non-square maps and grids, extents smaller than the image, crops partly outside."""
    maps = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 5, 7)))
    extent = Box(covered[0], covered[1], covered[0] + covered[2], covered[1] + covered[3])
    view = View.rotation(degrees, 1.2) if degrees else View.identity()
    view = view.then(View.crop(Box(crop[0], crop[1], crop[0] + crop[2], crop[1] + crop[3])))
    view = view.then(View.hflip()) if flip else view
    (h, w), fine = (3, 4), 64
    values, coverage = resample(maps, view, (h, w), extent)
    assert values.shape == (2, h, w)
    assert torch.isfinite(values).all()
    y, x = np.meshgrid(
        (np.arange(h * fine) + 0.5) / (h * fine),
        (np.arange(w * fine) + 0.5) / (w * fine),
        indexing="ij",
    )
    points = np.stack([x, y], -1)
    source = view.source_points(points)
    in_map = (source - [extent.x0, extent.y0]) / [extent.width, extent.height]
    seen = view.valid(points) & (in_map >= 0).all(-1) & (in_map <= 1).all(-1)
    count = seen.reshape(h, fine, w, fine).sum((1, 3))
    for plane, value in zip(maps, values, strict=True):
        at = interpolant(plane, in_map[..., 0], in_map[..., 1]) * seen
        mean = at.reshape(h, fine, w, fine).sum((1, 3)) / np.maximum(count, 1)
        shown = (count / fine**2) > 0.3
        tolerance = 0.06 if view.axis_aligned else 0.5
        np.testing.assert_allclose(value.numpy()[shown], mean[shown], atol=tolerance)
    tolerance = 0.05 if view.axis_aligned else 0.2
    np.testing.assert_allclose(coverage, count / fine**2, atol=tolerance)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.1, 1), st.floats(0.1, 1), st.floats(0, 1), st.floats(0, 1))
def test_flipping_twice_is_identity(width: float, height: float, x: float, y: float) -> None:
    maps = torch.from_numpy(np.random.default_rng(2).normal(size=(3, 6, 4)))
    left, top = x * (1 - width), y * (1 - height)
    view = View.crop(Box(left, top, left + width, top + height))
    for flip, axis in ((View.hflip(), 2), (View.vflip(), 1)):
        plain = resample(maps, view, (3, 5))[0]
        once = resample(maps, view.then(flip), (3, 5))[0]
        twice = resample(maps, view.then(flip).then(flip), (3, 5))[0]
        torch.testing.assert_close(once, plain.flip(axis))
        torch.testing.assert_close(twice, plain)


def test_a_turn_by_a_right_angle_permutes_a_square_map() -> None:
    maps = torch.from_numpy(np.random.default_rng(3).normal(size=(2, 4, 4)))
    turned = resample(maps, View.rotation(90, 1.0), (4, 4))[0]
    torch.testing.assert_close(
        turned, resample(maps, View.identity(), (4, 4))[0].rot90(1, (1, 2)), atol=0.02, rtol=0
    )


def test_one_cell_and_one_token() -> None:
    maps = torch.tensor([[[2.0]]])
    values, covered = resample(maps, View.crop(Box(-1.0, 0.0, 1.0, 1.0)), (1, 2))
    assert values[0, 0, 1] == 2.0
    assert covered.tolist() == [[0.0, 1.0]]
