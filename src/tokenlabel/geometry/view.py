"""`View`: where every point of an output frame comes from in a source image.

All frames are unit squares in fractions of their own width and height (pixel-edge convention,
x to the right, y down), so a `View` knows nothing of pixels and serves an image and its label map
alike. Operations that turn or slant need the frame's aspect ratio, which their constructors take.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tokenlabel.geometry.box import Box

__all__ = ["Row", "View", "leaves", "pixel_centers"]

Affine = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): an output point (x, y) comes from (a x + b y + c, d x + e y + f)."""

Row = tuple[float, float, float]
"""One coordinate of it, (a, b, c): a x + b y + c."""

_INSIDE_TOLERANCE = 1e-9
_UPRIGHT = 1e-12  # a smaller coefficient is zero


@dataclass(frozen=True)
class View:
    """An affine map from the output frame back to the source image, with its clipping stages.

    `stages[s]` takes an output point to the frame of stage s. Stage 0 is the source image; each
    further stage is an intermediate canvas that clipped the content (rotate, then crop: what left the
    canvas in the rotation is gone). A point is *valid* when it lies inside the unit square of every
    stage: one product of matrices could not say so.

    Views are composed with `then`: `View.rotation(10, aspect).then(View.crop(box))` rotates first.
    Plain numbers, not arrays: a view is made for every sample, and NumPy's calls would cost more
    than all else that is drawn.
    """

    stages: tuple[Affine, ...]

    # -- elementary views ------------------------------------------------------------------------

    @classmethod
    def identity(cls) -> View:
        return cls(((1.0, 0.0, 0.0, 0.0, 1.0, 0.0),))

    @classmethod
    def crop(cls, box: Box, *, hflip: bool = False, vflip: bool = False) -> View:
        """Show `box` of the source, then flip it; it may reach beyond the image."""
        width, height = box.width, box.height
        a, c = (-width, width + box.x0) if hflip else (width, box.x0)
        e, f = (-height, height + box.y0) if vflip else (height, box.y0)
        return cls(((a, 0.0, c, 0.0, e, f),))

    @classmethod
    def hflip(cls) -> View:
        return cls(((-1.0, 0.0, 1.0, 0.0, 1.0, 0.0),))

    @classmethod
    def vflip(cls) -> View:
        return cls(((1.0, 0.0, 0.0, 0.0, -1.0, 1.0),))

    @classmethod
    def translation(cls, dx: float, dy: float) -> View:
        """Move the content by (dx, dy) fractions of the frame: dx > 0 moves it to the right."""
        return cls(((1.0, 0.0, -dx, 0.0, 1.0, -dy),))

    @classmethod
    def rotation(cls, degrees: float, aspect: float) -> View:
        """Turn the content counter-clockwise about the center; `aspect` = width / height in pixels."""
        angle = math.radians(degrees)
        cos, sin = math.cos(angle), math.sin(angle)
        b, d = -sin / aspect, sin * aspect
        return cls(((cos, b, 0.5 - (cos + b) / 2, d, cos, 0.5 - (d + cos) / 2),))

    @classmethod
    def shear(cls, x: float, y: float, aspect: float) -> View:
        """Slant the content about the top-left corner, as PIL's affine (1, x, 0, y, 1, 0) does.

        An output pixel (i, j) shows source pixel (i + x * j, y * i + j); `aspect` = width / height.
        """
        return cls(((1.0, x / aspect, 0.0, y * aspect, 1.0, 0.0),))

    # -- composition -----------------------------------------------------------------------------

    def then(self, outer: View) -> View:
        """This view first, then `outer` on its output. Stages that cannot clip are dropped."""
        p, q, r, s, t, u = outer.stages[0]
        source, *canvases = [
            (
                a * p + b * s,
                a * q + b * t,
                a * r + b * u + c,
                d * p + e * s,
                d * q + e * t,
                d * r + e * u + f,
            )
            for a, b, c, d, e, f in self.stages
        ]
        return View((source, *filter(_clips, (*canvases, *outer.stages))))

    # -- what it says ----------------------------------------------------------------------------

    @cached_property
    def to_source(self) -> NDArray[np.float64]:
        """The 2x3 matrix from output fractions to source fractions."""
        return np.array(self.stages[0]).reshape(2, 3)

    @cached_property
    def axis_aligned(self) -> bool:
        """True when rows stay rows and columns stay columns (crops, flips, translations)."""
        return all(abs(b) < _UPRIGHT and abs(d) < _UPRIGHT for _, b, _, d, _, _ in self.stages)

    def source_points(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Source fractions [..., 2] of output fractions [..., 2]."""
        return np.asarray(points @ self.to_source[:, :2].T + self.to_source[:, 2])

    def valid(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which points [..., 2] of the output frame show source content rather than fill: bool [...]."""
        inside = np.ones(points.shape[:-1], dtype=bool)
        for a, b, c in self.clipping_rows():
            from_middle = points @ (a, b) + (c - 0.5)
            inside &= np.abs(from_middle) <= 0.5 + _INSIDE_TOLERANCE
        return inside

    def valid_pixels(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Of which output pixels the center is valid: bool [h, w]; `size` = (h, w)."""
        x, y = pixel_centers(size)
        low, high = np.full_like(y, -np.inf), np.full_like(y, np.inf)  # of x, in each row of pixels
        half = 0.5 + _INSIDE_TOLERANCE
        for a, b, c in self.clipping_rows():
            middle = 0.5 - c - b * y  # a x is no further than `half` from it
            if abs(a) < _UPRIGHT:
                low[np.abs(middle) > half] = np.inf
            else:
                np.maximum(low, middle / a - half / abs(a), out=low)
                np.minimum(high, middle / a + half / abs(a), out=high)
        return np.asarray((x >= low) & (x <= high))

    def valid_interval(self, axis: int) -> tuple[float, float]:
        """The output interval of one axis (0 = x, 1 = y) where an axis-aligned view shows content.

        Empty when the first number is not below the second.
        """
        low, high = 0.0, 1.0
        for stage in self.stages:
            scale, offset = stage[4 * axis], stage[3 * axis + 2]
            ends = (
                (-_INSIDE_TOLERANCE - offset) / scale,
                (1 + _INSIDE_TOLERANCE - offset) / scale,
            )
            low, high = max(low, min(ends)), min(high, max(ends))
        return low, high

    def source_box(self) -> Box:
        """The bounding box, in the source, of all that the output frame shows."""
        a, b, c, d, e, f = self.stages[0]
        (x0, x1), (y0, y1) = _reach(a, b, c), _reach(d, e, f)
        return Box(x0, y0, x1, y1)

    def clipping_rows(self) -> Iterator[Row]:
        """The coordinates of all stages that leave the unit interval somewhere in the frame."""
        for a, b, c, d, e, f in self.stages:
            yield from filter(leaves, ((a, b, c), (d, e, f)))


def pixel_centers(size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x [w] and y [h, 1] of the centers of h x w pixels, in fractions of the frame."""
    height, width = size
    return (np.arange(width) + 0.5) / width, (np.arange(height)[:, None] + 0.5) / height


def _reach(a: float, b: float, c: float) -> tuple[float, float]:
    """The least and the greatest value of a x + b y + c in the unit square."""
    return c + min(a, 0.0) + min(b, 0.0), c + max(a, 0.0) + max(b, 0.0)


def leaves(row: Row) -> bool:
    """Whether a coordinate leaves the unit interval somewhere in the frame."""
    low, high = _reach(*row)
    return low < -_INSIDE_TOLERANCE or high > 1 + _INSIDE_TOLERANCE


def _clips(stage: Affine) -> bool:
    """Whether the output frame reaches beyond a stage's unit square."""
    return leaves(stage[:3]) or leaves(stage[3:])
