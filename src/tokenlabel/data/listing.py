"""Images listed in a CSV file: a column of paths and, with or without, one of classes."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from tokenlabel.data.classes import classify_by_value, classify_by_values
from tokenlabel.data.folders import FolderSource
from tokenlabel.data.names import check_key
from tokenlabel.data.source import UNLABELED, Found, Listing
from tokenlabel.data.splits import Part, choose_part
from tokenlabel.errors import InputError

__all__ = ["column_of", "open_csv"]

_PATHS = ("path", "image", "file", "filename", "file_name")
_CLASSES = ("label", "class", "class_name", "category")
_SEVERAL = ("labels", "classes", "class_names", "categories", "tags")
_BETWEEN = ";"  # the classes of an image
_SPLITS = ("split", "part", "subset")


def open_csv(file: Path, split: str | None, part: Part | None) -> Listing:
    """The images of a CSV file with a heading, in its order; paths are relative to its folder.

    A column `labels` instead of `label` holds several classes of an image, "cat;dog".

    Raises InputError naming the line of the file for what cannot be used.
    """
    rows = _rows(file)
    heading = {name.strip().lower(): name for name in (rows[0] if rows else {})}
    path_column = _column(heading, _PATHS)
    if path_column is None:
        raise InputError(f"{file} needs a heading with a column 'path' (has {', '.join(heading)})")
    split_column, class_column = _column(heading, _SPLITS), _column(heading, _CLASSES)
    parts = {row[split_column] for row in rows} - {""} if split_column else set()
    chosen = choose_part(parts, split, part, str(file))
    lines: dict[str, int] = {}
    kept = []
    for number, row in enumerate(rows, start=2):
        if chosen and split_column and row[split_column] != chosen:
            continue
        key = row[path_column]
        check_key(key, f"line {number} of {file}")
        if key in lines:
            raise InputError(f"{file} lists {key} twice, in lines {lines[key]} and {number}")
        lines[key] = number
        kept.append(row)
    if not kept:
        raise InputError(f"{file} lists no images")
    several_column = None if class_column else _column(heading, _SEVERAL)
    if several_column is not None:
        cells = [[part.strip() for part in row[several_column].split(_BETWEEN)] for row in kept]
        flat = iter(_numbers_or_names([part for cell in cells for part in cell]))
        rows_of_values = [[next(flat) for _ in cell] for cell in cells]
        found = classify_by_values(list(lines), rows_of_values, str(file))
    else:
        values = [row[class_column] if class_column else "" for row in kept]
        found = classify_by_value(list(lines), _numbers_or_names(values), str(file))
    account = Found(
        len(found.keys),
        found.classes,
        found.labels.count(UNLABELED),
        {},
        chosen,
        found.notes,
    )
    return FolderSource(
        found.keys,
        found.labels,
        found.class_names,
        account,
        file.parent,
        several=found.several,
    )


def column_of(file: Path, name: str) -> dict[str, str] | None:
    """The values of a column of a CSV file by image; None where it has no such column."""
    rows = _rows(file)
    if not rows or name not in rows[0]:
        return None
    heading = {column.strip().lower(): column for column in rows[0]}
    paths = _column(heading, _PATHS)
    return {row[paths]: row[name] for row in rows} if paths else None


def _rows(file: Path) -> list[dict[str, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(
                        f"line {reader.line_num} of {file} has more or fewer values than the heading"
                    )
                rows.append(row)
            return rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read as CSV in UTF-8: {error}") from error


def _column(heading: dict[str, str], names: Sequence[str]) -> str | None:
    return next((heading[name] for name in names if name in heading), None)


def _numbers_or_names(values: Sequence[str]) -> list[object]:
    """Class numbers where all values are numbers, else class names."""
    known = [value for value in values if value]
    if all(re.fullmatch(r"-?\d{1,18}", value) for value in known):
        return [int(value) if value else None for value in values]
    return list(values)
