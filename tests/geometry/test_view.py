"""Laws of composition and validity."""

from __future__ import annotations

from functools import reduce

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from tokenlabel.geometry import Box, View, coverage

ASPECT = 1.3  # of the canvas that slanting operations are drawn on


def box(x: float, y: float, width: float, height: float) -> Box:
    return Box(x, y, x + width, y + height)


corner, side = st.floats(-0.3, 0.7), st.floats(0.1, 1.0)
upright = st.one_of(
    st.builds(View.crop, st.builds(box, corner, corner, side, side)),
    st.just(View.hflip()),
    st.just(View.vflip()),
    st.builds(View.translation, st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
)
slanted = st.one_of(
    st.builds(lambda degrees: View.rotation(degrees, ASPECT), st.floats(-180, 180)),
    st.builds(lambda x, y: View.shear(x, y, ASPECT), st.floats(-0.4, 0.4), st.floats(-0.4, 0.4)),
)
elementary = st.one_of(upright, slanted)
chains = st.lists(elementary, min_size=1, max_size=5)

POINTS = np.random.default_rng(0).uniform(0, 1, (500, 2))


def composed(chain: list[View]) -> View:
    return reduce(View.then, chain)


@given(elementary, elementary, elementary)
def test_composition_is_associative(a: View, b: View, c: View) -> None:
    left, right = a.then(b).then(c), a.then(b.then(c))
    np.testing.assert_allclose(left.to_source, right.to_source, atol=1e-9)
    np.testing.assert_array_equal(left.valid(POINTS), right.valid(POINTS))


@given(elementary)
def test_identity_changes_nothing(view: View) -> None:
    for same in (View.identity().then(view), view.then(View.identity())):
        np.testing.assert_allclose(same.to_source, view.to_source, atol=1e-12)
        np.testing.assert_array_equal(same.valid(POINTS), view.valid(POINTS))


def test_inverses_cancel() -> None:
    for once, back in [
        (View.hflip(), View.hflip()),
        (View.vflip(), View.vflip()),
        (View.rotation(31, ASPECT), View.rotation(-31, ASPECT)),
        (View.translation(0.2, -0.1), View.translation(-0.2, 0.1)),
    ]:
        np.testing.assert_allclose(once.then(back).to_source, View.identity().to_source, atol=1e-12)


@given(chains)
def test_validity_is_that_of_one_canvas_after_another(chain: list[View]) -> None:
    """Walk each point back through every canvas: it is lost where it leaves one."""
    points, inside = POINTS, np.ones(len(POINTS), bool)
    for view in reversed(chain):
        points = points @ view.to_source[:, :2].T + view.to_source[:, 2]
        inside &= ((points > -1e-9) & (points < 1 + 1e-9)).all(1)
    view = composed(chain)
    np.testing.assert_allclose(view.source_points(POINTS), points, atol=1e-9)
    np.testing.assert_array_equal(view.valid(POINTS), inside)


def test_what_left_a_canvas_does_not_come_back() -> None:
    view = View.translation(0.5, 0.0).then(View.translation(-0.5, 0.0))
    np.testing.assert_allclose(view.to_source, View.identity().to_source)
    assert view.valid(np.array([[0.25, 0.5], [0.75, 0.5]])).tolist() == [True, False]


@given(chains)
def test_pixel_validity_is_validity_of_pixel_centres(chain: list[View]) -> None:
    view, (h, w) = composed(chain), (7, 5)
    y, x = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
    np.testing.assert_array_equal(view.valid_pixels((h, w)), view.valid(np.stack([x, y], -1)))


@given(st.lists(upright, min_size=1, max_size=5))
def test_intervals_of_upright_views(chain: list[View]) -> None:
    view = composed(chain)
    assert view.axis_aligned
    inside = np.ones(len(POINTS), bool)
    for axis in (0, 1):
        low, high = view.valid_interval(axis)
        inside &= (POINTS[:, axis] >= low - 1e-9) & (POINTS[:, axis] <= high + 1e-9)
    np.testing.assert_array_equal(view.valid(POINTS), inside)


SLIGHT_TURN = View(((0.9998477, -0.01342493, 0.00678862, 0.02268813, 0.9998477, -0.01126791),))


@settings(max_examples=30)
@given(chains, st.builds(box, corner, corner, side, side))
@example([SLIGHT_TURN], Box(0.53125, 0.0, 0.6640625, 1.0))  # both edges in one token
@example([SLIGHT_TURN], Box(0.53125, 0.36, 0.7421875, 0.64))
def test_coverage_is_the_visible_share(chain: list[View], extent: Box) -> None:
    view, (h, w), fine = composed(chain), (3, 4), 40
    y, x = np.meshgrid(
        (np.arange(h * fine) + 0.5) / (h * fine),
        (np.arange(w * fine) + 0.5) / (w * fine),
        indexing="ij",
    )
    points = np.stack([x, y], -1)
    source = view.source_points(points)
    seen = view.valid(points)
    seen &= (source >= [extent.x0, extent.y0]).all(-1) & (source <= [extent.x1, extent.y1]).all(-1)
    expected = seen.reshape(h, fine, w, fine).mean((1, 3))
    tolerance = 0.06 if view.axis_aligned else 0.12  # slanted views: 4 x 4 parts a token
    np.testing.assert_allclose(coverage(view, (h, w), extent), expected, atol=tolerance)


@given(elementary)
def test_source_box_bounds_what_is_shown(view: View) -> None:
    bounds, points = view.source_box(), view.source_points(POINTS)
    assert (points >= np.array([bounds.x0, bounds.y0]) - 1e-9).all()
    assert (points <= np.array([bounds.x1, bounds.y1]) + 1e-9).all()


def test_boxes_have_an_inside() -> None:
    for corners in [(0.5, 0, 0.5, 1), (0, 1, 1, 0.5)]:
        with pytest.raises(ValueError, match="x0 < x1 and y0 < y1"):
            Box(*corners)
    assert Box.from_pixels(10, 20, 30, 40, (100, 200)) == Box(0.05, 0.2, 0.2, 0.6)
    assert Box.center_square((50, 100)) == Box(0.25, 0.0, 0.75, 1.0)
    assert Box.center_square((100, 100), 0.5).area == 0.25
