"""`Box`: the only rectangle in the package."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WHOLE", "Box"]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in fractions of an image: pixel *edges*, x to the right, y down.

    `Box(0, 0, 1, 1)` is the whole image whatever its size. Coordinates may lie outside [0, 1]
    (a crop that reaches beyond the image); `x0 < x1` and `y0 < y1` always hold.
    """

    x0: float = 0.0
    y0: float = 0.0
    x1: float = 1.0
    y1: float = 1.0

    def __post_init__(self) -> None:
        if not (self.x0 < self.x1 and self.y0 < self.y1):
            raise ValueError(
                f"Box needs x0 < x1 and y0 < y1, got ({self.x0}, {self.y0}, {self.x1}, {self.y1})"
            )

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        return self.width * self.height

    @classmethod
    def from_pixels(
        cls, left: float, top: float, width: float, height: float, size: tuple[int, int]
    ) -> Box:
        """The box of a pixel crop; `size` is the image's (height, width)."""
        rows, cols = size
        return cls(left / cols, top / rows, (left + width) / cols, (top + height) / rows)

    @classmethod
    def center_square(cls, size: tuple[int, int], crop_pct: float = 1.0) -> Box:
        """The centered square, `crop_pct` of the shorter side wide; `size` = (height, width)."""
        rows, cols = size
        side = min(rows, cols) * crop_pct
        return cls.from_pixels((cols - side) / 2, (rows - side) / 2, side, side, size)

    def as_tuple(self) -> tuple[float, float, float, float]:
        return (self.x0, self.y0, self.x1, self.y1)


WHOLE = Box()
"""The whole image."""
