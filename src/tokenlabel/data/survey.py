"""What kinds of images a data set holds, and the rules by which they become pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from tokenlabel.choices import Orientation
from tokenlabel.data.decode import deep_values, read_header
from tokenlabel.data.levels import ValueRange, extremes, value_range
from tokenlabel.data.orientation import UPRIGHT
from tokenlabel.data.reading import StorageError
from tokenlabel.data.rules import DecodeRules
from tokenlabel.errors import InputError

__all__ = ["Survey", "is_constant", "spread_indices", "survey"]

_LOOKED_INTO = 64  # images whose values tell the range of a data set


@dataclass
class Survey:
    """The images of a data set that were looked into, by kind."""

    images: int = 0
    unreadable: int = 0
    oriented: int = 0  # with an EXIF orientation other than upright
    modes: Counter[str] = field(default_factory=Counter)  # see `Header.mode`
    ranges: dict[str, ValueRange] = field(default_factory=dict)  # least and largest value by mode

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `of_dict` reads it."""
        return {**vars(self), "modes": dict(self.modes)}

    @classmethod
    def of_dict(cls, written: dict[str, Any]) -> Survey:
        ranges = {
            mode: (float(low), float(high)) for mode, (low, high) in written["ranges"].items()
        }
        return cls(**{**written, "modes": Counter(written["modes"]), "ranges": ranges})

    def rules(self, orientation: Orientation = "ignore") -> DecodeRules:
        """The rules for the whole data set that follow from these images."""
        found: dict[str, ValueRange] = {}
        for mode, (low, high) in self.ranges.items():
            kind = "floats" if mode == "F" or mode.startswith("float") else "integers"
            least, most = found.get(kind, (low, high))
            found[kind] = min(least, low), max(most, high)
        ranges = {
            kind: value_range(low, high, floats=kind == "floats")
            for kind, (low, high) in found.items()
        }
        return DecodeRules(
            ranges.get("integers"),
            ranges.get("floats"),
            orientation,
            deep=bool(ranges),
        )


def survey(images: Iterable[tuple[str, Callable[[], bytes]]]) -> Survey:
    """Look into images, given as key and a function that reads the file.

    Headers tell all but the values of images of more than 8 bits, which are decoded. Images that
    cannot be read count as such; StorageError is raised, for it says nothing about an image.
    """
    found = Survey()
    for key, read in images:
        try:
            data = read()
            mode, _, orientation = read_header(data, key)
            values = deep_values(data, key)
        except StorageError:
            raise
        except (InputError, OSError):
            found.unreadable += 1
            continue
        found.images += 1
        found.modes[mode] += 1
        found.oriented += orientation != UPRIGHT
        if values is not None:
            least, most = extremes(values)
            low, high = found.ranges.get(mode, (least, most))
            found.ranges[mode] = min(low, least), max(high, most)
    return found


def is_constant(pixels: NDArray[Any]) -> bool:
    """Whether all pixels [H, W, C] are the same."""
    first = pixels[0, 0]
    return bool((pixels[0] == first).all() and (pixels == first).all())


def spread_indices(count: int, wanted: int = _LOOKED_INTO) -> list[int]:
    """Up to `wanted` numbers below `count`, evenly spread, so that all classes are met."""
    wanted = min(count, wanted)
    return [place * count // wanted for place in range(wanted)]
