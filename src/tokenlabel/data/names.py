"""Names that come out of data: their order, and which of them are refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

from tokenlabel.errors import InputError

__all__ = [
    "ARCHIVE_ENDINGS",
    "check_key",
    "is_archive",
    "is_gzipped",
    "ordered",
    "sort_key",
    "stem",
]

_LONGEST = 4096  # bytes of a key; also bounds the numbers that `sort_key` reads
ARCHIVE_ENDINGS = (".tar", ".tar.gz", ".tgz")


def sort_key(name: str) -> tuple[list[str | int], str]:
    """Sorts numbers by value, without regard to case, as `timm.utils.natural_key`; ties by name.

    The natural key alone is no total order ("A" and "a", "1" and "01" are equal in it).
    """
    pieces = re.split(r"(\d+)", name.lower())  # at odd places are the digits
    return [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], name


def ordered(names: Iterable[str]) -> list[str]:
    """Names in the one order of this project."""
    return sorted(names, key=sort_key)


def check_key(key: str, where: str) -> None:
    """Raise InputError for a name that cannot be the key of an image, or a path below a folder."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        shown = key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise InputError(f"{where} holds a name that is not UTF-8: {shown}: rename it") from None
    if not key or size > _LONGEST or "\0" in key:
        raise InputError(f"{where} holds a name that is empty, too long or has a NUL: {key[:80]!r}")
    if key.startswith("/") or ".." in key.split("/"):
        raise InputError(f"{where} holds {key!r}, which leads out of the data set: rename it")


def stem(archive: str) -> str:
    """The name of an archive without its folder and ending: "St. Bernard" of "x/St. Bernard.tar"."""
    name = PurePath(archive).name
    for ending in ARCHIVE_ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVE_ENDINGS)


def is_gzipped(archive: str) -> bool:
    """Whether an archive is gzipped."""
    return archive.lower().endswith((".tar.gz", ".tgz"))
