"""Names that come out of data, and places for output."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

from tokenlabel.errors import InputError
from tokenlabel.files.locks import LOCK
from tokenlabel.files.writing import ASIDE, explained, remove_leftovers

__all__ = ["cache_folder", "claim_file", "claim_folder", "contents", "inside"]


def inside(folder: Path, name: str, *, links: bool = False) -> Path:
    """The path `folder / name` of a name read from data, an archive or another machine.

    Raises InputError for names that are empty, absolute, hold "..", a drive or a NUL, or lead out of
    the folder through a symbolic link. `links` accepts a last part that is a link, for reading hub
    caches, which consist of links.
    """
    parts = PurePosixPath(name).parts + PureWindowsPath(name).parts
    bad = (
        not name.strip()
        or "\0" in name
        or ".." in parts
        or name in (".", "./")
        or PurePosixPath(name).is_absolute()
        or PureWindowsPath(name).anchor != ""
    )
    path = folder / name
    if not bad:
        place = path.parent.resolve() / path.name if links else path.resolve()
        bad = not place.is_relative_to(folder.resolve())
    if bad:
        raise InputError(f"{name!r} is not a name of a file inside {folder}: it is refused")
    return path


def claim_folder(
    path: Path, *, overwrite: bool | None = None, ours: Callable[[Path], bool] | None = None
) -> Path:
    """Make a folder for output, or accept one that is empty or `ours`.

    Raises InputError where it holds something else; `overwrite` accepts that too, and files of equal
    names are replaced. None is for verbs that have no such option.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: name a folder")
    foreign = path.is_dir() and not overwrite and contents(path)
    if foreign and not (ours is not None and ours(path)):
        option = "" if overwrite is None else ", or say --overwrite"
        raise InputError(
            f"{path} is not empty and holds something else: choose another folder{option}"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(explained(error, path, 0)) from error
    remove_leftovers(path)
    return path


def claim_file(path: Path, *, overwrite: bool = False) -> Path:
    """A file for output whose folder exists from now on.

    Raises InputError where the file exists, unless `overwrite` is set.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already: choose another name, or say --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(explained(error, path, 0)) from error
    return path


def cache_folder() -> Path:
    """For what can be made or fetched again: `TOKENLABEL_CACHE`, or a folder in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TOKENLABEL_CACHE") or Path(base) / "tokenlabel")


def contents(folder: Path) -> set[str]:
    """Names in a folder, but for a lock and drafts, which a process that was killed leaves behind."""
    names = (entry.name for entry in os.scandir(folder))
    return {name for name in names if name != LOCK and ASIDE.search(name) is None}
