"""`View`: where every point of an output frame comes from in a source image.

All frames are unit squares in fractions of their own width and height (pixel-edge convention,
x to the right, y down), so a `View` knows nothing of pixels and serves an image and its label map
alike. Operations that turn or slant need the frame's aspect ratio, which their constructors take.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tokenlabel.geometry.box import Box

__all__ = ["View"]

Matrix = NDArray[np.float64]

_IDENTITY: Matrix = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_INSIDE_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class View:
    """An affine map from the output frame back to the source image, with its clipping stages.

    `stages[s]` is a 2x3 matrix taking an output point (x, y, 1) to the frame of stage s. Stage 0 is
    the source image; each further stage is an intermediate canvas that clipped the content (rotate,
    then crop: what left the canvas in the rotation is gone). A point is *valid* when it lies inside
    the unit square of every stage: one product of matrices could not say so.

    Views are composed with `then`: `View.rotation(10, aspect).then(View.crop(box))` rotates first.
    """

    stages: NDArray[np.float64]  # [S, 2, 3]

    # -- elementary views ------------------------------------------------------------------------

    @classmethod
    def identity(cls) -> View:
        return cls(_IDENTITY[None])

    @classmethod
    def crop(cls, box: Box) -> View:
        """Show `box` of the source; it may reach beyond the image."""
        return cls(np.array([[[box.width, 0.0, box.x0], [0.0, box.height, box.y0]]]))

    @classmethod
    def hflip(cls) -> View:
        return cls(np.array([[[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]]))

    @classmethod
    def vflip(cls) -> View:
        return cls(np.array([[[1.0, 0.0, 0.0], [0.0, -1.0, 1.0]]]))

    @classmethod
    def translation(cls, dx: float, dy: float) -> View:
        """Move the content by (dx, dy) fractions of the frame: dx > 0 moves it to the right."""
        return cls(np.array([[[1.0, 0.0, -dx], [0.0, 1.0, -dy]]]))

    @classmethod
    def rotation(cls, degrees: float, aspect: float) -> View:
        """Turn the content counter-clockwise about the centre; `aspect` = width / height in pixels."""
        angle = math.radians(degrees)
        cos, sin = math.cos(angle), math.sin(angle)
        return cls.about_center(np.array([[cos, -sin / aspect], [sin * aspect, cos]]))

    @classmethod
    def shear(cls, x: float, y: float, aspect: float) -> View:
        """Slant the content about the top-left corner, as PIL's affine (1, x, 0, y, 1, 0) does.

        An output pixel (i, j) shows source pixel (i + x * j, y * i + j); `aspect` = width / height.
        """
        return cls(np.array([[[1.0, x / aspect, 0.0], [y * aspect, 1.0, 0.0]]]))

    @classmethod
    def about_center(cls, linear: NDArray[np.float64]) -> View:
        """The view whose 2x2 part is `linear` (output to source) and which keeps the centre."""
        center = np.array([0.5, 0.5])
        return cls(np.concatenate([linear, (center - linear @ center)[:, None]], axis=1)[None])

    # -- composition -----------------------------------------------------------------------------

    def then(self, outer: View) -> View:
        """This view first, then `outer` on its output. Stages that cannot clip are dropped."""
        inner = self.stages[:, :, :2] @ outer.to_source
        inner[:, :, 2] += self.stages[:, :, 2]
        stages = np.concatenate([inner, outer.stages])
        keep = _clips(stages).any(axis=1) | (np.arange(len(stages)) == 0)  # the source stays
        return View(stages[keep])

    # -- what it says ----------------------------------------------------------------------------

    @property
    def to_source(self) -> Matrix:
        """The 2x3 matrix from output fractions to source fractions."""
        matrix: Matrix = self.stages[0]
        return matrix

    @cached_property
    def axis_aligned(self) -> bool:
        """True when rows stay rows and columns stay columns (crops, flips, translations)."""
        return bool((np.abs(self.stages[:, [0, 1], [1, 0]]) < 1e-12).all())

    def source_points(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Source fractions [..., 2] of output fractions [..., 2]."""
        return np.asarray(points @ self.to_source[:, :2].T + self.to_source[:, 2])

    def valid(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which output points [..., 2] show source content rather than fill: bool [...]."""
        inside = np.ones(points.shape[:-1], dtype=bool)
        for stage in self.stages:
            position = points @ stage[:, :2].T + stage[:, 2]
            inside &= ((position >= -_INSIDE_TOLERANCE) & (position <= 1 + _INSIDE_TOLERANCE)).all(
                -1
            )
        return inside

    def valid_pixels(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Of which output pixels the centre is valid: bool [h, w]; `size` = (h, w)."""
        x = (np.arange(size[1]) + 0.5) / size[1]
        y = (np.arange(size[0]) + 0.5)[:, None] / size[0]
        inside = np.ones(size, dtype=bool)
        for row in self.stages[_clips(self.stages)]:
            from_middle = (row[0] * x + (row[2] - 0.5)) + row[1] * y
            inside &= np.abs(from_middle) <= 0.5 + _INSIDE_TOLERANCE
        return inside

    def valid_interval(self, axis: int) -> tuple[float, float]:
        """The output interval of one axis (0 = x, 1 = y) where an axis-aligned view shows content.

        Empty when the first number is not below the second.
        """
        low, high = 0.0, 1.0
        for stage in self.stages.tolist():
            scale, offset = stage[axis][axis], stage[axis][2]
            ends = sorted((-offset / scale, (1.0 - offset) / scale))
            low, high = max(low, ends[0]), min(high, ends[1])
        return low, high

    def source_box(self) -> Box:
        """The bounding box, in the source, of all that the output frame shows."""
        corners = self.source_points(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
        return Box(x0, y0, x1, y1)


def _clips(stages: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the output frame reaches beyond each stage's unit interval of x and of y: [S, 2]."""
    linear, offset = stages[:, :, :2], stages[:, :, 2]
    low = offset + np.minimum(linear, 0.0).sum(2)
    high = offset + np.maximum(linear, 0.0).sum(2)
    return np.asarray((low < -_INSIDE_TOLERANCE) | (high > 1 + _INSIDE_TOLERANCE))
