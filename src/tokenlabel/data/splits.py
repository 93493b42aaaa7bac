"""The parts of a data set, and the one rule by which a verb chooses among them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Literal

from tokenlabel.data.names import ordered, stem
from tokenlabel.errors import InputError, nearest

__all__ = [
    "NoSuchPartError",
    "Part",
    "choose_part",
    "file_part",
    "holds_parts",
    "named_like_a_part",
    "parts_among",
    "top_folders",
    "wrapper_of",
]


class NoSuchPartError(InputError):
    """The data has parts, but not the one that is to be read."""


Part = Literal["train", "val"]

# the usual names of each part, the best first; a test part stands in for a missing validation part
_USUAL: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_PART_OF = {name: part for part, names in _USUAL.items() for name in names}
_WORDS = {"train": "training", "val": "validation"}


def named_like_a_part(name: str) -> bool:
    return name.lower() in _PART_OF


def file_part(path: str) -> str | None:
    """The part that a file's name says: "train" of "data/train-00000-of-00002.parquet"."""
    words = re.split(r"[-_.]", stem(path).lower())
    found = {word for word in words if word in _PART_OF}
    return found.pop() if len(found) == 1 else None


def top_folders(paths: Iterable[str]) -> dict[str, frozenset[str]]:
    """The top folders of image paths, each with its folders; none where images lie in it directly."""
    inside: dict[str, set[str]] = {}
    flat = set()
    for path in paths:
        top, *rest = path.split("/")
        if not rest:
            continue
        inside.setdefault(top, set())
        if len(rest) == 1:
            flat.add(top)
        else:
            inside[top].add(rest[0])
    return {top: frozenset(() if top in flat else held) for top, held in inside.items()}


def parts_among(tops: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """Which top folders are the parts of a data set; () where they are its classes.

    A class may be called `train`: folders are parts only where their names are usual ones and class
    folders lie in them, or where they share the names of these.
    """
    usual = [top for top in tops if named_like_a_part(top)]
    nested = [top for top in usual if tops[top]]
    if len(usual) == len(tops):
        parts = bool(nested) or len(usual) > 1
    elif len(usual) > 1:
        parts = bool(nested)
    else:
        others = [tops[top] for top in tops if top not in usual]
        parts = bool(nested) and all(tops[nested[0]] & other for other in others)
    return tuple(ordered(tops)) if parts and tops else ()


def holds_parts(tops: Mapping[str, frozenset[str]]) -> bool:
    """Whether top folders are parts in which class folders lie."""
    return any(tops[part] for part in parts_among(tops))


def wrapper_of(paths: Collection[str]) -> str:
    """The folder around the parts: "photos/" of "photos/train/cat/1.jpg"; "" where there is none."""
    base, tops = "", top_folders(paths)
    while len(tops) == 1 and all(tops.values()) and not parts_among(tops):
        base += f"{next(iter(tops))}/"
        if not all(path.startswith(base) for path in paths):
            break
        tops = top_folders(path.removeprefix(base) for path in paths)
        if holds_parts(tops):
            return base
    return ""


def choose_part(
    parts: Collection[str],
    split: str | None,
    part: Part | None,
    where: str,
    others: Collection[str] = (),
) -> str | None:
    """The part to read, or None for all of the data.

    `split` names one of `parts`, by its own name or another usual one for the same, or one of
    `others` (folders that are no parts by themselves). Without it, `part` is the verb's default.
    Raises InputError that names the flag and the parts.
    """
    known = ordered({*parts, *others})
    held = ", ".join(known[:8]) or "no parts"
    if split is not None:
        same = [name for name in known if name == split] or [
            name for name in known if split in _PART_OF and _kind(name) == _PART_OF[split]
        ]
        if not same:
            advice = "choose one with --split" if known else "leave --split out"
            raise NoSuchPartError(
                f"no split {split!r} in {where}{nearest(split, known)}: it holds {held}; {advice}"
            )
        return same[0]
    if not parts:
        return None
    if part is None:
        if len(parts) == 1:
            return next(iter(parts))
        raise InputError(f"{where} holds the parts {held}: say which one to read with --split")
    for kind in ("train",) if part == "train" else ("val", "test"):
        for name in ordered(parts):
            if _kind(name) == kind:
                return name
    raise NoSuchPartError(
        f"no {_WORDS[part]} part in {where}: it holds {held}; name one with --split"
    )


def _kind(name: str) -> str | None:
    return _PART_OF.get(PurePosixPath(name).name.lower())
