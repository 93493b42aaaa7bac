"""`ClassMap`: from the classes an annotator knows to those of a data set."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenlabel.errors import InputError, nearest

__all__ = ["ClassMap", "match_classes"]

_NEVER = -100.0  # below the best class's logit: the score of a class that the annotator cannot name


class ClassMap:
    """Sums the probabilities of all annotator classes that stand for a class of the data set.

    Annotator classes that stand for nothing are dropped, so what remains is the distribution given
    that the cell shows one of the data set's classes. `of[a]` is the data set's class of annotator
    class a, or -1.
    """

    def __init__(self, of: Sequence[int], num_classes: int) -> None:
        self.num_classes = num_classes
        self._of = tuple(of)
        self._members = [[a for a, c in enumerate(of) if c == n] for n in range(num_classes)]

    @property
    def description(self) -> dict[str, Any]:
        used = sum(c >= 0 for c in self._of)
        return {"annotator_classes": len(self._of), "used": used, "of": list(self._of)}

    def __call__(self, logits: Tensor) -> Tensor:
        """Annotator logits [..., A] to the data set's [..., C]."""
        if all(len(members) == 1 for members in self._members):
            return logits[..., [members[0] for members in self._members]]
        never = logits.amax(-1) + _NEVER
        return torch.stack(
            [logits[..., members].logsumexp(-1) if members else never for members in self._members],
            -1,
        )


def match_classes(
    annotator: Sequence[str] | None,
    count: int,
    dataset: Sequence[str],
    table: Path | None = None,
) -> ClassMap | None:
    """How an annotator of `count` classes serves a data set; None where both agree as they are.

    By `table`, a CSV of two columns (annotator class, data set class; names or annotator indices);
    else by equal names; else by equal number, where the annotator has no names. Raises InputError
    where none of these fits.
    """
    if table is not None:
        return _from_table(table, annotator, count, dataset)
    if annotator is None:
        if count == len(dataset):
            return None
        raise InputError(
            f"the annotator knows {count} classes without names, the data set has {len(dataset)}:"
            " give a class map, or teach an annotator on this data set first (`tokenlabel teach`)"
        )
    if list(annotator) == list(dataset):
        return None
    places = {name: i for i, name in enumerate(dataset)}
    known = set(annotator)
    missing = [name for name in dataset if name not in known]
    if missing:
        raise InputError(
            f"the annotator does not know {len(missing)} of the data set's {len(dataset)} classes,"
            f" {missing[0]!r} for one{nearest(missing[0], annotator)}: give a class map, or teach"
            " an annotator on this data set first (`tokenlabel teach`)"
        )
    return ClassMap([places.get(name, -1) for name in annotator], len(dataset))


def _from_table(
    table: Path, annotator: Sequence[str] | None, count: int, dataset: Sequence[str]
) -> ClassMap:
    numbers = {str(i): i for i in range(count)}
    numbers.update({name: i for i, name in enumerate(annotator or ())})
    places = {name: i for i, name in enumerate(dataset)}
    of = [-1] * count
    try:
        rows = list(csv.reader(table.read_text(encoding="utf-8").splitlines()))
    except OSError as error:
        raise InputError(f"cannot read the class map {table}: {error.strerror}") from error
    for line, row in enumerate(rows, 1):
        if not row:
            continue
        if len(row) != 2:
            raise InputError(
                f"{table}, line {line}: needs two columns, annotator and data set class"
            )
        source, target = (cell.strip() for cell in row)
        if source not in numbers:
            near = nearest(source, numbers)
            raise InputError(f"{table}, line {line}: the annotator has no class {source!r}{near}")
        if target not in places:
            near = nearest(target, places)
            raise InputError(f"{table}, line {line}: the data set has no class {target!r}{near}")
        of[numbers[source]] = places[target]
    return ClassMap(of, len(dataset))
