"""What the masks of a data set hold: which classes occur, and how much is unlabeled."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenlabel.data.orientation import UPRIGHT
from tokenlabel.errors import InputError
from tokenlabel.progress import progress_bar
from tokenlabel.segmentation.classes import ClassList
from tokenlabel.segmentation.files import read_mask
from tokenlabel.segmentation.pairs import Pair, Pairs

__all__ = ["MaskAccount", "account_of"]

_NAMED = 6  # classes in a message
# of the pixels: so many without a class, beside a class that is missing, may be that class. Borders
# and what annotators leave open fill less
_LARGE = 0.2


@dataclass(frozen=True)
class MaskAccount:
    """The masks of one split."""

    classes: ClassList
    masks: int
    pixels: Tensor  # [C] int64, of each class
    unlabeled: dict[int, int]  # pixels of each value that stands for no class
    oriented: int  # images with an EXIF orientation other than upright

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes that occur in no mask."""
        return tuple(n for n, p in zip(self.classes.names, self.pixels, strict=True) if p == 0)

    @property
    def _present(self) -> int:
        return len(self.classes) - len(self.absent)

    def lines(self, split: str, *, orientation_applied: bool) -> list[str]:
        """What to say of these masks, one line a fact; "" where all is as one expects."""
        said = []
        if self.absent:
            named = ", ".join(map(repr, self.absent[:_NAMED]))
            more = f" and {len(self.absent) - _NAMED} more" if len(self.absent) > _NAMED else ""
            which = "class {} is" if len(self.absent) == 1 else "classes {} are"
            said.append(f"{split}: the {which.format(named + more)} in none of the masks.")
        total = int(self.pixels.sum()) + sum(self.unlabeled.values())
        for value, count in sorted(self.unlabeled.items()):
            line = f"{split}: unlabeled (value {value}): {count / total:.1%} of the pixels."
            if self.absent and (count >= _LARGE * total or self._present < 2):
                line += f" If {value} is a class, say with the ignore index what is unlabeled."
            said.append(line)
        if self.oriented:
            how = "is applied" if orientation_applied else "is ignored"
            said.append(
                f"{split}: {self.oriented} of {self.masks} images carry an EXIF orientation, which"
                f" {how}"
            )
        return said

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "masks": self.masks,
            "pixels": dict(zip(self.classes.names, self.pixels.tolist(), strict=True)),
            "absent": list(self.absent),
            "unlabeled": {str(value): count for value, count in sorted(self.unlabeled.items())},
            "oriented": self.oriented,
        }


class _Mask(NamedTuple):
    """One mask."""

    pair: Pair
    counts: NDArray[np.int64]  # pixels of each value
    oriented: bool


def account_of(pairs: Pairs, *, workers: int = 1, show: bool = False) -> MaskAccount:
    """Read all masks, in `workers` threads.

    Raises InputError for a pair that does not fit, and for values that are no class, with their
    counts over all masks: a training that takes days should not meet them on the way.
    """
    by_value: Counter[int] = Counter()
    found_in: Counter[int] = Counter()  # masks
    first: dict[int, Pair] = {}
    oriented = 0

    def look(pair: Pair) -> _Mask:
        values, header = read_mask(pair, pairs.rules)
        return _Mask(pair, np.bincount(values.ravel()), header.orientation != UPRIGHT)

    with ThreadPoolExecutor(workers) as threads, progress_bar(visible=show) as bar:
        task = bar.add_task("checking masks", total=len(pairs), note="")
        for mask in bar.track(threads.map(look, pairs.items), task_id=task):
            for value in np.flatnonzero(mask.counts).tolist():
                by_value[value] += int(mask.counts[value])
                found_in[value] += 1
                first.setdefault(value, mask.pair)
            oriented += mask.oriented
    classes = pairs.classes
    unknown = sorted(set(by_value) - set(classes.values) - set(classes.ignored))
    if unknown:
        others = ", ".join(
            f"{value} in {found_in[value]} ({by_value[value]:,} pixels)"
            for value in unknown[:_NAMED]
        )
        raise InputError(
            f"{classes.fault(str(first[unknown[0]].mask), unknown[0])}; of {len(pairs)} masks, values"
            f" of no class: {others}"
        )
    pixels = torch.tensor([by_value[value] for value in classes.values])
    unlabeled = {value: by_value[value] for value in classes.ignored if by_value[value]}
    return MaskAccount(classes, len(pairs), pixels, unlabeled, oriented)
