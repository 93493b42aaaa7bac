"""The rules by which the images of a data set become pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tokenlabel.choices import Orientation
from tokenlabel.data.levels import ValueRange
from tokenlabel.errors import InputError

__all__ = ["AS_STORED", "DecodeRules"]


@dataclass(frozen=True)
class DecodeRules:
    """How the images of a data set become pixels; found once, and kept with all that is made of them.

    - `integers`, `floats`: the values of images of more than 8 bits, and of floating-point images,
      that become black and white. None: those of each image by itself (see `value_range`).
    - `orientation`: whether EXIF orientations are applied, to images, masks and boxes alike.
    - `channels`: how many the model takes; 3 are red, green and blue, 1 is gray.
    - `chosen`: which of the stored channels these are, by number. None: all.
    - `deep`: whether images of more than 8 bits keep them; all pixels of the data are float32 then.
    """

    integers: ValueRange | None = None
    floats: ValueRange | None = None
    orientation: Orientation = "ignore"
    channels: int = 3
    chosen: tuple[int, ...] | None = None
    deep: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the pixels."""
        return np.dtype(np.float32 if self.deep else np.uint8)

    @property
    def usual(self) -> bool:
        """Whether they say nothing but what holds for RGB images of 8 bits."""
        return self == AS_STORED

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `of_dict` reads it. What is as in a first version's run is not written."""
        written = {
            "integers": self.integers and list(self.integers),
            "floats": self.floats and list(self.floats),
            "orientation": self.orientation,
        }
        new = {"channels": self.channels, "chosen": self.chosen, "deep": self.deep}
        return written | {k: v for k, v in new.items() if v != getattr(DecodeRules, k)}

    def filled(self, found: DecodeRules) -> DecodeRules:
        """Those that a model was trained by, for data in which others were `found`: ranges that
        these do not say, the depth where they say none, and the orientation that was chosen, are of
        `found`."""
        known = self.integers or self.floats
        return replace(
            self,
            integers=self.integers or found.integers,
            floats=self.floats or found.floats,
            orientation=found.orientation,
            deep=self.deep if known else found.deep,
        )

    @classmethod
    def of_dict(cls, written: Any) -> DecodeRules:
        """Raises InputError for what `as_dict` does not write."""
        try:
            integers, floats = written.get("integers"), written.get("floats")
            chosen = written.get("chosen")
            return cls(
                integers and (float(integers[0]), float(integers[1])),
                floats and (float(floats[0]), float(floats[1])),
                "apply" if written.get("orientation") == "apply" else "ignore",
                int(written.get("channels", 3)),
                None if chosen is None else tuple(map(int, chosen)),
                bool(written.get("deep", False)),
            )
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
            raise InputError(
                f"the rules by which images were decoded are damaged ({str(written)[:80]})"
            ) from None


AS_STORED = DecodeRules()
"""Each image by itself, as it is stored."""
