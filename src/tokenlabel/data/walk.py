"""The one walk through a folder of images, and which files count as images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from tokenlabel.data.names import check_key, sort_key
from tokenlabel.errors import InputError

__all__ = [
    "entries_of",
    "image_endings",
    "is_array",
    "is_image",
    "is_visible",
    "kept_arrays",
    "sift",
    "walk",
]

# formats of pictures that Pillow decodes by itself; PostScript, say, would start another program
_FORMATS = {
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA",
    "TIFF", "WEBP",
}  # fmt: skip
_ARRAY = ".npy"
_RESOURCE_FORKS = "__MACOSX"  # a folder of archives made on a Mac


@cache
def image_endings() -> frozenset[str]:
    """Lower-case suffixes, with their dot, of the files that are read as images."""
    Image.init()
    return frozenset(
        ending
        for ending, kind in Image.registered_extensions().items()
        if kind in _FORMATS and kind in Image.OPEN
    )


def is_image(path: str) -> bool:
    """Whether the suffix is that of an array, or of a picture that Pillow, as it is built here, can
    decode."""
    return is_array(path) or _ending(path) in image_endings()


def is_array(path: str) -> bool:
    """Whether the suffix is that of a NumPy array."""
    return _ending(path) == _ARRAY


def kept_arrays(arrays: list[str], left_out: Counter[str], *, beside_pictures: bool) -> list[str]:
    """Of a data set's arrays those that are its images: none, and counted, where it has pictures."""
    if not beside_pictures:
        return arrays
    if arrays:
        left_out[f"files ending in {_ARRAY}"] += len(arrays)
    return []


def is_visible(path: str) -> bool:
    """Whether no part of a path is hidden (begins with a dot) or a Mac's resource fork."""
    return not any(part[:1] == "." or part == _RESOURCE_FORKS for part in path.split("/"))


def sift(path: str, left_out: Counter[str]) -> bool:
    """Whether a file is a visible image; else its reason is counted."""
    if not is_visible(path):
        left_out["hidden"] += 1
    elif not is_image(path):
        ending = _ending(path)
        left_out[f"files ending in {ending}" if ending else "files without an ending"] += 1
    else:
        return True
    return False


def _ending(path: str) -> str:
    name = path.rpartition("/")[2]
    before, dot, after = name.rpartition(".")
    return f".{after.lower()}" if before and dot else ""


def walk(root: Path, left_out: Counter[str], folders: list[str] | None = None) -> Iterator[str]:
    """Paths below `root`, with slashes, of its visible regular image files, in no special order.

    Folders that are links are followed; each real folder is entered once, by its own path if it
    lies below `root`. Arrays are images where there are no pictures. What is passed over is counted
    by its reason; the folders that were entered are added to `folders`. Raises InputError where a
    folder cannot be listed or a name cannot be a key.
    """
    arrays: list[str] = []
    pictures = False
    for path in _walk(root, left_out, [] if folders is None else folders):
        if is_array(path):
            arrays.append(path)
        else:
            pictures = True
            yield path
    yield from kept_arrays(arrays, left_out, beside_pictures=pictures)


def _walk(root: Path, left_out: Counter[str], folders: list[str]) -> Iterator[str]:
    # what contains `root` counts as entered: a link to it would bring in all that lies beside
    entered = {_identity(folder) for folder in root.resolve().parents}
    waiting = [(root, "")]
    links: list[tuple[Path, str]] = []  # entered after all real folders, so that these come first
    while waiting or links:
        if not waiting:
            links.sort(key=lambda link: sort_key(link[1]), reverse=True)
            waiting.append(links.pop())
        folder, prefix = waiting.pop()
        identity = _identity(folder)
        if identity in entered:
            left_out["links to folders that are read already"] += 1
            continue
        entered.add(identity)
        if prefix:
            folders.append(prefix[:-1])
        for entry in entries_of(folder):
            path = f"{prefix}{entry.name}"
            if not is_visible(entry.name):
                left_out["hidden"] += 1
            elif entry.is_dir(follow_symlinks=False):
                waiting.append((folder / entry.name, f"{path}/"))
            elif entry.is_dir():
                links.append((folder / entry.name, f"{path}/"))
            elif not entry.is_file():
                left_out["not regular files"] += 1
            elif sift(path, left_out):
                check_key(path, str(root))
                yield path


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, in no special order. Raises InputError where it cannot be listed."""
    try:
        return list(os.scandir(folder))
    except OSError as error:
        raise InputError(f"cannot list the folder {folder}: {error.strerror}") from error


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}") from error
    return status.st_dev, status.st_ino
