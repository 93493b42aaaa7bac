"""What the numbers in a mask mean: mask values to classes and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tokenlabel.errors import InputError

__all__ = ["IGNORED", "ClassList", "Labels", "cityscapes_classes"]

Labels = NDArray[np.int16]

IGNORED = -1
"""The label of a pixel that has no class: no loss falls on it and no metric counts it."""

_UNKNOWN = -2
_LARGEST_VALUE = 65535  # of a 16-bit mask


@dataclass(frozen=True)
class ClassList:
    """The names of the classes and the mask values that stand for them.

    `values[c]` is the mask value of class c; pixels whose value is among `ignored` have no class.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    ignored: tuple[int, ...]

    @classmethod
    def counted(cls, names: Sequence[str], ignore_index: int) -> ClassList:
        """Classes in the order of their mask values, which leave out `ignore_index`.

        So 0 means classes from 1 on (ADE20K), and 255 means classes from 0 on.
        """
        values = [value for value in range(len(names) + 1) if value != ignore_index]
        return cls(tuple(names), tuple(values[: len(names)]), (ignore_index,))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _table(self) -> Labels:
        table = np.full(_LARGEST_VALUE + 1, _UNKNOWN, np.int16)
        table[list(self.values)] = np.arange(len(self.values))
        table[list(self.ignored)] = IGNORED
        return table

    def decode(self, mask: NDArray[np.integer], name: str) -> Labels:
        """Mask values [H, W] to labels. Raises InputError naming `name` for a value of no class."""
        labels: Labels = self._table[mask]
        if labels.size and labels.min() == _UNKNOWN:
            row, col = np.argwhere(labels == _UNKNOWN)[0].tolist()
            raise InputError(self.fault(name, int(mask[row, col]), f" (row {row}, column {col})"))
        return labels

    def fault(self, mask: str, value: int, place: str = "") -> str:
        """What to say of a value of no class in a mask of a name."""
        return (
            f"mask {mask} holds the value {value}{place}, but {self.line()}: name"
            " every class in the class list, or say with the ignore index what is unlabeled"
        )

    def line(self) -> str:
        """What the values mean, in words."""
        known = f"{min(self.values)} to {max(self.values)}"
        ignored = ", ".join(str(value) for value in self.ignored[:3])
        return f"the {len(self)} classes are the values {known} and {ignored} is unlabeled"

    def encode(self, labels: Labels) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Labels [H, W] to mask values: 8-bit where they fit, else 16-bit."""
        values = [*self.values, self.ignored[0]]  # label -1 finds the last one
        if max(values) > 255:
            return np.array(values, np.uint16)[labels]
        return np.array(values, np.uint8)[labels]


def cityscapes_classes(*, train_ids: bool) -> ClassList:
    """The 19 evaluated classes of Cityscapes, in masks of train ids or of its 34 full ids."""
    names = tuple(_CITYSCAPES)
    if train_ids:
        return ClassList.counted(names, 255)
    values = tuple(_CITYSCAPES.values())
    void = tuple(value for value in range(34) if value not in values)
    return ClassList(names, values, (*void, 255))


_CITYSCAPES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
