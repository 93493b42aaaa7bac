"""`ClassMap`: from the classes an annotator knows to those of a data set."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import Tensor

from tokenlabel.errors import InputError, nearest
from tokenlabel.text import read_text

__all__ = ["ClassMap", "known_classes", "match_classes"]

_SHOWN = 6  # ambiguous names in a message
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


def known_classes(model: Any) -> tuple[list[str] | None, list[str] | None]:
    """Names and descriptions of a timm model's classes, as its weights or ImageNet say; or unknown.

    A description is a list of lemmas: "goldfish, Carassius auratus".
    """
    config = getattr(model, "pretrained_cfg", None) or {}
    subset = infer_imagenet_subset(model)
    info = None if subset is None else ImageNetInfo(subset)
    names = list(config.get("label_names") or (info.label_names() if info else ()))
    if not names:
        return None, None
    described = config.get("label_descriptions") or {}
    if info is not None and set(names) <= set(info.label_names()):
        described = {name: info.label_name_to_description(name) for name in names} | described
    return names, [str(described.get(name, name)) for name in names]


def match_classes(
    annotator: Sequence[str] | None,
    count: int,
    dataset: Sequence[str],
    table: Path | None = None,
    descriptions: Sequence[str] | None = None,
) -> ClassMap | None:
    """How an annotator of `count` classes serves a data set; None where both agree as they are.

    By `table`, a CSV of two columns (annotator class, data set class; names or annotator indices);
    else by names: equal ones, or the lemmas of `descriptions`, in whatever case and with spaces,
    hyphens or underscores; else by number, where the data set's classes are the numbers 0 to
    `count` - 1 or the annotator has no names. Raises InputError where none of these fits.
    """
    if table is not None:
        return _from_table(table, annotator, count, dataset)
    if annotator is None:
        if count == len(dataset):
            return None
        raise InputError(
            f"the annotator knows {count} classes without names, the data set has {len(dataset)}:"
            f" {_REMEDY}"
        )
    if list(annotator) == list(dataset):
        return None
    numbered = {str(number): number for number in range(count)}
    if {_number(name) for name in dataset} == numbered.keys():
        order = {numbered[_number(name)]: place for place, name in enumerate(dataset)}
        return ClassMap([order[number] for number in range(count)], len(dataset))
    return ClassMap(_by_name(annotator, dataset, descriptions or annotator), len(dataset))


_REMEDY = (
    "teach an annotator on this data set first (`tokenlabel teach`), or label the images with"
    " `tokenlabel annotate` and --class-map (a CSV of annotator class, data set class) or"
    " --keep-classes (the annotator's own classes)"
)


def _by_name(
    annotator: Sequence[str], dataset: Sequence[str], descriptions: Sequence[str]
) -> list[int]:
    """The data set's class of each annotator class, or -1."""
    named: dict[str, list[int]] = defaultdict(list)
    lemmas: dict[str, set[int]] = defaultdict(set)
    for number, (name, description) in enumerate(zip(annotator, descriptions, strict=True)):
        named[name].append(number)
        for lemma in {name, *description.split(",")}:
            lemmas[_plain(lemma)].add(number)
    of = [-1] * len(annotator)
    missing, unclear = [], []
    for place, name in enumerate(dataset):
        found = named.get(name) or sorted(lemmas.get(_plain(name), ()))
        if not found:
            missing.append(name)
        elif len(found) > 1:
            unclear.append(f"{name!r} ({' or '.join(annotator[n] for n in found)})")
        elif of[found[0]] >= 0:
            unclear.append(f"{dataset[of[found[0]]]!r} and {name!r} (both {annotator[found[0]]})")
        else:
            of[found[0]] = place
    faults = []
    if missing:
        faults.append(
            f"the annotator does not know {len(missing)} of the data set's {len(dataset)} classes,"
            f" {missing[0]!r} for one{nearest(missing[0], {*annotator, *lemmas})}"
        )
    if unclear:
        more = f" and {len(unclear) - _SHOWN} more" if len(unclear) > _SHOWN else ""
        faults.append(f"ambiguous names: {', '.join(unclear[:_SHOWN])}{more}")
    if faults:
        raise InputError(f"{'; '.join(faults)}: {_REMEDY}")
    return of


def _plain(name: str) -> str:
    """A name as it is compared: without case, and with spaces for underscores and hyphens."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _number(name: str) -> str:
    """ "7" of "007"; other names as they are."""
    return str(int(name)) if name.isascii() and name.isdigit() else name


def _from_table(
    table: Path, annotator: Sequence[str] | None, count: int, dataset: Sequence[str]
) -> ClassMap:
    numbers = {str(i): i for i in range(count)}
    numbers.update({name: i for i, name in enumerate(annotator or ())})
    places = {name: i for i, name in enumerate(dataset)}
    of = [-1] * count
    try:
        rows = list(csv.reader(read_text(table, f"the class map {table}").splitlines()))
    except csv.Error as error:
        raise InputError(f"{table} is not a table of two columns: {error}") from None
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
