"""The only place that opens images: a table of openers, and one rule for the parts of a data set."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import fsspec
import numpy as np
from braceexpand import braceexpand

from tokenlabel.choices import Orientation
from tokenlabel.data.archives import open_archives
from tokenlabel.data.folders import holds_images, open_folder
from tokenlabel.data.listing import open_csv
from tokenlabel.data.names import ARCHIVE_ENDINGS, is_archive, ordered
from tokenlabel.data.shards import listed_shards
from tokenlabel.data.source import UNLABELED, ImageSource, Listing, Subset
from tokenlabel.data.splits import NoSuchPartError, Part
from tokenlabel.data.tables import open_hub, open_parquet, open_saved
from tokenlabel.data.walk import entries_of, is_visible
from tokenlabel.errors import InputError, nearest
from tokenlabel.progress import console, first_process

__all__ = [
    "HOLDOUT_SEED",
    "announce",
    "expand",
    "holdout",
    "is_packed",
    "is_pattern",
    "open_images",
    "open_source",
    "open_validation",
]

_HUB_PREFIXES = ("hfds/", "hf://datasets/", "hf://")
HOLDOUT_SEED = 0  # one for all runs, so that their validation images are the same
_MOST_FILES = 100_000  # of a brace pattern
_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)")


def open_source(
    location: str, split: str | None = None, *, orientation: Orientation = "ignore"
) -> ImageSource:
    """Open the images at `location`, whatever their form.

    - a folder with one subfolder a class (or of parts that hold such, or of one tar a part or class);
    - a `.tar`, `.tar.gz` or `.tgz` of the same layout, or a tar of one tar a class;
    - WebDataset shards: `shards-{0000..0099}.tar`, `shards-*.tar`, local or any fsspec URL; or the
      `.json` file that lists them (`wids`);
    - Hugging Face data sets: `hfds/owner/name`, a folder made by `save_to_disk`, `.parquet` files;
    - a `.csv` file with the columns `path` and `label`.

    `split` names the part of a data set that has parts ("train", "validation"); keys are relative
    to it, so a folder and a tar of it have the same keys. Raises InputError where nothing is found,
    and where the data has several parts and none is named.
    """
    return open_images(location, split, orientation=orientation)


def open_images(
    location: str,
    split: str | None = None,
    part: Part | None = None,
    *,
    orientation: Orientation = "ignore",
) -> ImageSource:
    """As `open_source`; without `split`, `part` chooses among the parts of a data set that has any.

    "train" takes the part called train or training; "val" takes val, valid or validation, else test
    or testing. A data set without parts is opened as a whole. Which part was chosen is in `found`.
    Some images are looked into, for the range of their values; `orientation` says whether EXIF
    orientations are applied, by all that decode the images (see `ImageSource.rules`).
    """
    for opener in OPENERS:
        if opener.takes(location):
            return opener.open(location, split, part).looked_into(orientation)
    raise _not_data(Path(location).expanduser())


def open_validation(location: str) -> ImageSource | None:
    """The validation part of a data set, or None where it has none."""
    try:
        source = open_images(location, part="val")
    except NoSuchPartError:
        return None
    return source if source.found.part else None


def announce(source: ImageSource, where: str) -> None:
    """Print the account of opened data in one line, once for all ranks."""
    if first_process():
        console.print(f"{where}: {source.found.line()}", soft_wrap=True)


class Opener(NamedTuple):
    """One form in which images are kept."""

    takes: Callable[[str], bool]
    open: Callable[[str, str | None, Part | None], Listing]


# -- what each opener takes ------------------------------------------------------------------------


def is_packed(location: str) -> bool:
    """Whether a location is anything but a plain folder: archives, tables, a list, the hub."""
    return any(opener.takes(location) for opener in OPENERS if opener.open is not _open_folder)


def is_pattern(location: str) -> bool:
    """Whether a location stands for the files that match it."""
    return any(sign in location for sign in "*{") and not Path(location).exists()


def _is_parquet(location: str) -> bool:
    return location.endswith(".parquet") and _is_file(location)


def _is_archives(location: str) -> bool:
    return is_archive(location) and _is_file(location)


def _is_shard_list(location: str) -> bool:
    return location.endswith(".json") and _is_file(location)


def _is_file(location: str) -> bool:
    return "://" in location or is_pattern(location) or Path(location).expanduser().is_file()


def _is_hub(location: str) -> bool:
    return location.startswith(_HUB_PREFIXES)


def _is_saved(location: str) -> bool:
    path = Path(location).expanduser()
    return any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _is_csv(location: str) -> bool:
    return location.lower().endswith(".csv") and Path(location).expanduser().is_file()


def _is_folder(location: str) -> bool:
    return Path(location).expanduser().is_dir()


# -- and how it opens it ---------------------------------------------------------------------------


def _open_hub(location: str, split: str | None, part: Part | None) -> Listing:
    prefix = next(prefix for prefix in _HUB_PREFIXES if location.startswith(prefix))
    name = location.removeprefix(prefix).strip("/")
    if not name or name.count("/") > 1:
        raise InputError(
            f"{location} names no data set of the hub: give hfds/owner/name, or the path of its"
            f" {', '.join(ARCHIVE_ENDINGS)} or .parquet files, such as"
            " hf://datasets/owner/name/*.parquet"
        )
    return open_hub(name, split, part)


def _open_parquet(location: str, split: str | None, part: Part | None) -> Listing:
    return open_parquet(expand(location), split, part, location, whole_folder=False)


def _open_archives(location: str, split: str | None, part: Part | None) -> Listing:
    return open_archives(expand(location), split, part, whole_folder=False)


def _open_shard_list(location: str, split: str | None, part: Part | None) -> Listing:
    place = location if "://" in location else str(Path(location).expanduser())
    return open_archives(listed_shards(place), split, part, whole_folder=False)


def _open_folder(location: str, split: str | None, part: Part | None) -> Listing:
    """A folder of Parquet files, of archives, or of images."""
    path = Path(location).expanduser()
    tables = _visible_files(path, (".parquet",)) or _visible_files(path / "data", (".parquet",))
    if tables:
        return open_parquet(tables, split, part, str(path), whole_folder=True)
    archives = _visible_files(path, ARCHIVE_ENDINGS)
    if archives and not any(
        entry.is_dir() and is_visible(entry.name) and holds_images(path / entry.name)
        for entry in entries_of(path)
    ):
        return open_archives(archives, split, part, whole_folder=True)
    return open_folder(path, split, part)


def _open_csv(location: str, split: str | None, part: Part | None) -> Listing:
    return open_csv(Path(location).expanduser(), split, part)


def _open_saved(location: str, split: str | None, part: Part | None) -> Listing:
    return open_saved(Path(location).expanduser(), split, part)


# a location is opened by the first that takes it
OPENERS: tuple[Opener, ...] = (
    Opener(_is_parquet, _open_parquet),
    Opener(_is_archives, _open_archives),
    Opener(_is_shard_list, _open_shard_list),
    Opener(_is_hub, _open_hub),
    Opener(_is_saved, _open_saved),
    Opener(_is_csv, _open_csv),
    Opener(_is_folder, _open_folder),
)


def expand(location: str) -> list[str]:
    """The files that a path, a glob or a brace pattern stands for; globs in natural order."""
    if "://" not in location and Path(location).expanduser().exists():
        return [str(Path(location).expanduser())]
    parts = [location]
    if "{" in location:
        parts = _braces(location)
    found = []
    for part in parts:
        if "*" in part:
            filesystem, path = fsspec.core.url_to_fs(part)
            matches = ordered(str(match) for match in filesystem.glob(path))
            found += [filesystem.unstrip_protocol(m) if "://" in part else m for m in matches]
        else:
            found.append(part)
    if not found:
        raise InputError(f"no file matches {location}")
    return found


def _braces(pattern: str) -> list[str]:
    """What a brace pattern stands for. Ranges are measured first: the library makes them whole."""
    try:
        longest = max((abs(int(b) - int(a)) for a, b in _RANGE.findall(pattern)), default=0)
        parts = list(islice(braceexpand(pattern), _MOST_FILES + 1)) if longest < _MOST_FILES else []
    except ValueError as error:
        raise InputError(f"cannot read the pattern {pattern}: {error}") from error
    if not parts or len(parts) > _MOST_FILES:
        raise InputError(f"{pattern} stands for more than {_MOST_FILES:,} files")
    return parts


def holdout(source: ImageSource, share: float, seed: int) -> tuple[ImageSource, ImageSource]:
    """Divide `source` into images to train on and images held out, stratified by class.

    Of each class with two images or more the nearest whole number to `share` is held out, at least
    one and not all. Which ones is decided by a hash of seed and key, so that neither the order nor
    the other classes matter. Images without a class stay with the first part.
    """
    if not 0 < share < 1:
        raise InputError(f"the share of images to hold out must lie between 0 and 1, not {share}")
    labels = np.asarray(source.labels)
    held: list[int] = []
    for label in np.unique(labels[labels != UNLABELED]):
        members = np.flatnonzero(labels == label).tolist()
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        held += sorted(members, key=lambda i: _draw(seed, source.keys[i]))[:count]
    chosen = set(held)
    kept = [i for i in range(len(source)) if i not in chosen]
    note = f"{len(chosen):,} held out for validation ({share:.0%} of each class, seed {seed})"
    return (
        Subset.of(source, kept, note),
        Subset.of(source, sorted(chosen), f"those held out in training (seed {seed})"),
    )


def _draw(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{key}".encode()).digest()


def _visible_files(folder: Path, endings: tuple[str, ...]) -> list[str]:
    if not folder.is_dir():
        return []
    names = [
        entry.name
        for entry in entries_of(folder)
        if entry.is_file() and is_visible(entry.name) and entry.name.lower().endswith(endings)
    ]
    return [str(folder / name) for name in ordered(names)]


def _not_data(path: Path) -> InputError:
    if is_pattern(str(path)) or "://" in str(path):
        return InputError(
            f"{path} is not a data set: name {', '.join(ARCHIVE_ENDINGS)} or .parquet files"
        )
    if not path.exists():
        siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
        return InputError(f"no images at {path}: it does not exist{nearest(str(path), siblings)}")
    return InputError(
        f"{path} is not a data set: give a folder, a {', '.join(ARCHIVE_ENDINGS)}, .parquet or .csv file"
    )
