"""Pictures of which nothing is known but where they lie: files, folders, patterns, archives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenlabel.choices import Orientation
from tokenlabel.data.folders import FolderSource
from tokenlabel.data.names import ordered
from tokenlabel.data.open import expand, is_packed, is_pattern, open_images
from tokenlabel.data.source import UNLABELED, Found, ImageSource
from tokenlabel.data.walk import sift, walk
from tokenlabel.errors import InputError

__all__ = ["open_pictures"]


def open_pictures(
    locations: Sequence[str], split: str | None = None, *, orientation: Orientation = "ignore"
) -> list[ImageSource]:
    """All images at `locations`; their keys are paths as given, or names within an archive or table.

    - an image file, whatever its ending;
    - a folder: every image in it and below it, whatever its folders mean;
    - a pattern such as `photos/*.jpg`: its files and folders;
    - an archive, a table or a data set of the hub, as `open_source` takes them; `split` is of these.

    Files and folders make one source, each archive or table one more. Raises InputError where there
    is no image at a location.
    """
    files: list[str] = []
    left_out: Counter[str] = Counter()
    packed: list[ImageSource] = []
    for location in locations:
        if is_packed(location) or not (found := list(_files(location, left_out))):
            packed.append(open_images(location, split, orientation=orientation))
        else:
            files += found
    if not files:
        return packed
    files = list(dict.fromkeys(files))
    account = Found(len(files), 0, len(files), dict(left_out))
    source = FolderSource(files, [UNLABELED] * len(files), (), account, Path())
    return [source.looked_into(orientation), *packed]


def _files(location: str, left_out: Counter[str]) -> Iterator[str]:
    if is_pattern(location):
        for match in expand(location):
            if Path(match).is_dir() or sift(Path(match).name, left_out):
                yield from _files(match, left_out)
        return
    path = Path(location).expanduser()
    if path.is_dir():
        yield from (str(path / key) for key in ordered(walk(path, left_out)))
    elif path.is_file():
        yield str(path)
    else:
        raise InputError(f"no image at {location}: it does not exist")
