"""Which class each image has: by the folder that holds it, or by a value beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokenlabel.data.names import ordered, sort_key
from tokenlabel.data.source import UNLABELED
from tokenlabel.data.walk import image_endings
from tokenlabel.errors import InputError

__all__ = ["Classified", "classify_by_folder", "classify_by_value", "classify_by_values"]

_MOST_CLASSES = 1_000_000  # a larger class number is a mistake, not a class


class Classified(NamedTuple):
    """Keys in their order, with classes."""

    keys: list[str]
    labels: list[int]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what the account should say about the classes
    several: list[tuple[int, ...]] | None = None  # all classes of each image; `labels`: the first

    @property
    def classes(self) -> int:
        """How many there are; a flat folder's one class without a name is none."""
        return 0 if self.class_names == ("",) else len(self.class_names)


def classify_by_folder(keys: Sequence[str], where: str) -> Classified:
    """Order image paths and name their classes as timm's readers do: leaf folders, natural order.

    Ties of the natural order are broken by the exact name. Images of a flat folder share one class,
    whose name is empty. Folders of the same name in different places are one class, and a note says
    so. Raises InputError naming `where`.
    """
    if not keys:
        endings = ", ".join(sorted(image_endings()))
        raise InputError(f"no images in {where}: looked for {endings} in it and its folders")
    keys = ordered(keys)
    folders = [key.rpartition("/")[0] for key in keys]
    class_names = tuple(ordered({_name(folder) for folder in set(folders)}))
    if "" in class_names and len(class_names) > 1:
        stray = next(key for key in keys if "/" not in key)
        raise InputError(
            f"{where} holds class folders and also {stray} beside them: move it into one"
        )
    index = {name: i for i, name in enumerate(class_names)}
    labels = [index[_name(folder)] for folder in folders]
    return Classified(keys, labels, class_names, _joined(folders))


def _name(folder: str) -> str:
    return folder.rpartition("/")[2]


def _joined(folders: Sequence[str]) -> tuple[str, ...]:
    """A note for each class whose images lie in several folders."""
    places: dict[str, set[str]] = {}
    for folder in set(folders):
        places.setdefault(_name(folder), set()).add(folder)
    return tuple(
        f"class {name!r} is {' and '.join(ordered(held)[:3])}{' ...' if len(held) > 3 else ''}"
        for name, held in sorted(places.items(), key=lambda item: sort_key(item[0]))
        if len(held) > 1
    )


def classify_by_value(
    keys: Sequence[str],
    values: Sequence[object],
    where: str,
    class_names: Sequence[str] | None = None,
) -> Classified:
    """Classes of images from the values that stand beside them, in the order given.

    Strings are class names, in natural order; whole numbers are indices of `class_names` or, without
    these, of classes that bear them as names. None, -1 and "" are images without a class. Raises
    InputError naming `where` for any other value.
    """
    known = [value for value in values if not _is_missing(value)]
    if class_names is None and known and all(isinstance(value, str) for value in known):
        names = tuple(ordered({str(value) for value in known}))
    else:
        names = _numbered(keys, values, where, class_names)
    index: dict[object, int] = {name: i for i, name in enumerate(names)}
    labels = [
        UNLABELED if _is_missing(v) else index[v] if isinstance(v, str) else int(v)  # type: ignore[call-overload]
        for v in values
    ]
    return Classified(list(keys), labels, names)


def classify_by_values(
    keys: Sequence[str],
    values: Sequence[Sequence[object]],
    where: str,
    class_names: Sequence[str] | None = None,
) -> Classified:
    """As `classify_by_value` where an image may have several classes, each once."""
    owners = [i for i, row in enumerate(values) for _ in row]
    flat = [value for row in values for value in row]
    found = classify_by_value([keys[i] for i in owners], flat, where, class_names)
    classes: list[dict[int, None]] = [{} for _ in keys]
    for owner, label in zip(owners, found.labels, strict=True):
        if label != UNLABELED:
            classes[owner][label] = None
    several = [tuple(each) for each in classes]
    first = [each[0] if each else UNLABELED for each in several]
    note = f"{sum(map(len, several)):,} classes of images, of which each may have several"
    return Classified(list(keys), first, found.class_names, (note,), several)


def _numbered(
    keys: Sequence[str], values: Sequence[object], where: str, class_names: Sequence[str] | None
) -> tuple[str, ...]:
    """The classes where values are numbers, each of which must be one of them."""
    names = None if class_names is None else tuple(map(str, class_names))
    most = -1
    for key, value in zip(keys, values, strict=True):
        if _is_missing(value) or (names and isinstance(value, str) and value in names):
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputError(f"{key} in {where} has the class {value!r}: give a number or a name")
        if not 0 <= value < (_MOST_CLASSES if names is None else len(names)):
            held = "classes begin at 0" if names is None else f"there are {len(names)} classes"
            raise InputError(f"{key} in {where} has the class number {value}: {held}")
        most = max(most, value)
    return tuple(map(str, range(most + 1))) if names is None else names


def _is_missing(value: object) -> bool:
    return value is None or value == "" or (value == UNLABELED and not isinstance(value, bool))
