"""Folds: a data set's images in K shares, by a hash of their keys, or of groups that stay together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from tokenlabel.data.listing import column_of
from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError

__all__ = ["folds_of"]


def folds_of(source: ImageSource, location: str, count: int, group: str | None = None) -> list[int]:
    """The fold of each image, 0 to `count` - 1; neither the order nor the other images matter.

    `group` names a column of the CSV file `location`, or is a regular expression that is searched in
    the keys: images of one value, or of one match (its first group, if it has one), share a fold: frames
    of a video, pictures of a patient. Raises InputError where it fits no image, and where a class would
    lie in one fold alone.
    """
    names = source.keys if group is None else _groups(source, location, group)
    folds = [_fold(name, count) for name in names]
    held = set(folds)
    if len(held) < count:
        raise InputError(
            f"{len(set(names)):,} {'images' if group is None else 'groups'} of {location} do not fill"
            f" {count} folds: use fewer"
        )
    seen: dict[int, set[int]] = {}
    for label, fold in zip(source.labels, folds, strict=True):
        seen.setdefault(int(label), set()).add(fold)
    for label, where in sorted(seen.items()):
        if len(where) == 1:
            raise InputError(
                f"all images of class {source.class_names[label]!r} fall into one fold, so that the"
                " network that labels them would never have seen it: use more folds or finer groups"
            )
    return folds


def _fold(name: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(f"fold\0{name}".encode()).digest()[:8], "big") % count


def _groups(source: ImageSource, location: str, group: str) -> Sequence[str]:
    values = column_of(Path(location).expanduser(), group) if location.endswith(".csv") else None
    if values is not None:
        return [values[key] for key in source.keys]
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise InputError(f"--group {group!r} is not a regular expression: {error}") from None
    found = []
    for key in source.keys:
        match = pattern.search(key)
        if match is None:
            raise InputError(
                f"--group {group!r} is found nowhere in {key!r}, and is not a column of a CSV file"
            )
        found.append(match[1] if pattern.groups else match[0])
    return found
