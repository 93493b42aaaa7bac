"""The names of the classes that the values of masks stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenlabel.errors import InputError
from tokenlabel.text import read_json, read_text

__all__ = ["read_class_names"]

_CLASS_FILES = ("classes.json", "classes.txt", "objectInfo150.txt")


def read_class_names(place: Path) -> tuple[str, ...]:
    """Class names from a file, or from the one lying in a data set's folder.

    `.json`: a list of names; `.txt`: one a line, or a table with a header whose last column, after a
    tab, is the name (ADE20K's objectInfo150.txt). Raises InputError where there is none.
    """
    file = place
    if place.is_dir():
        found = [place / name for name in _CLASS_FILES if (place / name).is_file()]
        if not found:
            raise InputError(
                f"{place} has no class list ({', '.join(_CLASS_FILES)}): write the names of the"
                " classes, in the order of their mask values, or give a file that has them"
            )
        file = found[0]
    names = _parse(file)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if len(names) < 2 or doubled:
        fault = f"names {doubled[0]!r} twice" if doubled else f"names {len(names)} classes"
        raise InputError(f"the class list {file} {fault}: it needs two or more different names")
    return tuple(names)


def _parse(file: Path) -> list[str]:
    if file.suffix == ".json":
        names: list[Any] = read_json(file, kind=list)
        if not all(isinstance(name, str) for name in names):
            raise InputError(f"the class list {file} should be a list of names")
        return names
    text = read_text(file)
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and "\t" in lines[0]:
        lines = lines[1:]  # the header
    return [line.split("\t")[-1].strip() for line in lines]
