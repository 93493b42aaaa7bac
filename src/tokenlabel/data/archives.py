"""Images inside tar files: class folders, a tar a class, or WebDataset shards; local or remote.

Members are found once (`tokenlabel.data.shard_index`) and then read by their byte ranges, so that access
is random, needs no open tar, and works from any number of processes.
"""

from __future__ import annotations

import json
import os
import re
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenlabel.data.classes import Classified, classify_by_folder
from tokenlabel.data.decode import JPEG_MAGIC, read_header
from tokenlabel.data.names import is_gzipped, stem
from tokenlabel.data.ranges import files_version, read_ranges
from tokenlabel.data.reading import read_patiently
from tokenlabel.data.shard_index import index_file, made_once, scan_shard, shard_indexes
from tokenlabel.data.shards import classify_by_note
from tokenlabel.data.source import UNLABELED, Found, Listing
from tokenlabel.data.splits import (
    Part,
    choose_part,
    file_part,
    parts_among,
    top_folders,
    wrapper_of,
)
from tokenlabel.data.survey import Survey, spread_indices
from tokenlabel.data.tar import unpacked
from tokenlabel.data.walk import is_array, is_visible, kept_arrays, sift
from tokenlabel.errors import InputError
from tokenlabel.files import write_atomically
from tokenlabel.text import read_json

__all__ = ["open_archives"]

_HEADS = (1 << 13, 1 << 16)  # bytes that most JPEGs' headers take, and nearly all
_IN_FLIGHT = 32  # images that are asked for together
_SHARD = re.compile(r"(|.*[-_.])\d{4,}(?:-of-\d+)?")


class _Unpacked:
    """Owns what compressed archives were unpacked to; shared by all copies of a source."""


@dataclass(frozen=True)
class ArchiveSource(Listing):
    """Images that are byte ranges of tar files."""

    archives: Sequence[str]  # as they were named, packed or not
    plain: Sequence[str]  # the tars themselves
    numbers: NDArray[np.uint32]  # of each image's archive
    offsets: NDArray[np.uint64]
    sizes: NDArray[np.uint64]
    unpacked: _Unpacked = field(default_factory=_Unpacked, repr=False)

    def version(self) -> str:
        return files_version(self.archives)

    def surveyed(self) -> Survey:
        """Kept with the tars' indexes: a start that finds it reads no image."""
        some = spread_indices(len(self))
        places = [(self.archives[self.numbers[i]], *self._place(i)[1:], self.keys[i]) for i in some]
        content = f"{self.version()} {len(self)} {places}"
        path = index_file(content, ".json")

        def kept() -> Survey | None:
            with suppress(InputError, TypeError, KeyError, ValueError):
                return Survey.of_dict(read_json(path, kind=dict))
            return None

        def write() -> Survey:
            seen = super(ArchiveSource, self).surveyed()
            write_atomically(path, json.dumps(seen.as_dict()))
            return seen

        return made_once(path, kept, write)

    def head(self, index: int) -> bytes:
        archive, start, end = self._place(index)
        for most in _HEADS if "://" in archive else ():
            (data,) = read_ranges([(archive, start, min(end, start + most))], self._what(index))
            if not data.startswith(JPEG_MAGIC):
                break
            with suppress(InputError):
                read_header(data, self.keys[index])
                return data
        return self.read(index)

    def read(self, index: int) -> bytes:
        archive, start, end = self._place(index)
        if "://" in archive:
            (data,) = read_ranges([(archive, start, end)], self._what(index))
        else:
            data = read_patiently(lambda: _read_range(archive, start, end), self._what(index))
        return self._whole(index, data)

    def read_many(self, indices: Sequence[int]) -> Iterator[bytes]:
        """As `read`. Of remote tars, some are on their way while others are used."""
        if not any("://" in archive for archive in self.plain):
            yield from map(self.read, indices)
            return
        groups = [indices[i : i + _IN_FLIGHT] for i in range(0, len(indices), _IN_FLIGHT)]
        with ThreadPoolExecutor(1) as ahead:
            waiting = [ahead.submit(self._together, group) for group in groups]
            for future in waiting:
                yield from future.result()

    def _together(self, indices: Sequence[int]) -> list[bytes]:
        places = [self._place(index) for index in indices]
        found = read_ranges(places, f"{self._what(indices[0])} and others")
        return [self._whole(index, data) for index, data in zip(indices, found, strict=True)]

    def _place(self, index: int) -> tuple[str, int, int]:
        offset = int(self.offsets[index])
        return self.plain[int(self.numbers[index])], offset, offset + int(self.sizes[index])

    def _what(self, index: int) -> str:
        return f"{self.keys[index]} from {self.archives[int(self.numbers[index])]}"

    def _whole(self, index: int, data: bytes) -> bytes:
        if len(data) != int(self.sizes[index]):
            archive = self.archives[int(self.numbers[index])]
            raise InputError(f"{archive} was cut short: {self.keys[index]} is not whole in it")
        return data


def _read_range(archive: str, start: int, end: int) -> bytes:
    """Opened anew each time: of thousands of shards a process may not keep all open."""
    with Path(archive).open("rb", buffering=0) as file:
        return os.pread(file.fileno(), end - start, start)


class _Place(NamedTuple):
    """An image: its path in its archive, and its bytes."""

    archive: int
    path: str
    offset: int
    size: int


def open_archives(
    archives: Sequence[str], split: str | None, part: Part | None, *, whole_folder: bool
) -> Listing:
    """The images inside tar files (paths or fsspec URLs) as one source.

    Where images have `.cls` or `.json` notes beside them, they are WebDataset shards; else an
    image's folder, or its tar among several, is its class; numbered tars (`shard-0001`) of images
    without folders have none. Where the files' names say parts, the
    split rule chooses among the files; `whole_folder` tells that they are all of a folder, so that
    one part alone is a part too. Raises InputError.
    """
    by_file = {archive: file_part(archive) for archive in archives}
    said = {name for name in by_file.values() if name}
    chosen = None
    if None not in by_file.values() and len(said) > (0 if whole_folder else 1):
        where = str(PurePosixPath(archives[0]).parent)
        chosen = choose_part(said, split, part, where)
        archives = [archive for archive in archives if by_file[archive] == chosen]
        split = part = None
    several = len(archives) > 1
    where = f"{archives[0]} ... {archives[-1]}" if several else archives[0]
    left_out: Counter[str] = Counter()
    images: dict[str, _Place] = {}
    notes: dict[str, bytes] = {}
    temporary: list[str] = []
    try:
        plain = [unpacked(archive, temporary) for archive in archives]
        kept = iter(shard_indexes([path for path in archives if not is_gzipped(path)]))
        prefixes = _prefixes(archives)
        for number, archive in enumerate(archives):
            index = scan_shard(plain[number], archive) if is_gzipped(archive) else next(kept)
            left_out.update(index.left_out)
            for inner, offset, size in zip(index.paths, index.offsets, index.sizes, strict=True):
                path = prefixes[number] + inner
                if path in images or path in notes:
                    raise InputError(f"{archive} holds {inner} twice: names must be unique")
                if inner in index.notes and is_visible(inner):
                    notes[path] = index.notes[inner]
                elif sift(inner, left_out):
                    images[path] = _Place(number, inner, int(offset), int(size))
        arrays = [path for path in images if is_array(path)]
        pictures = len(arrays) < len(images)
        for path in {*arrays} - {*kept_arrays(arrays, left_out, beside_pictures=pictures)}:
            del images[path]
        source = _source(images, notes, left_out, split, part, where, chosen, (archives, plain))
    except BaseException:
        for path in temporary:
            _remove(path, os.getpid())
        raise
    for path in temporary:
        weakref.finalize(source.unpacked, _remove, path, os.getpid())
    return source


def _source(
    images: dict[str, _Place],
    notes: dict[str, bytes],
    left_out: Counter[str],
    split: str | None,
    part: Part | None,
    where: str,
    chosen: str | None,
    archives: tuple[Sequence[str], Sequence[str]],
) -> ArchiveSource:
    keys = {path: image.path for path, image in images.items()}
    found = classify_by_note(keys, notes, left_out, where)
    if found is not None:
        choose_part((), split, part, where)  # shards have no parts within: a split is refused
        places = list(images.values())
    else:
        base = wrapper_of(images)
        tops = top_folders(path.removeprefix(base) for path in images)
        inner = choose_part(parts_among(tops), split, part, where, tops)
        base += f"{inner}/" if inner else ""
        within = [path.removeprefix(base) for path in images if path.startswith(base)]
        found = classify_by_folder(within, where)
        places = [images[base + key] for key in found.keys]
        flat = not any("/" in image.path for image in places)
        if flat and base == "" and _numbered(archives[0]):
            found = Classified(found.keys, [UNLABELED] * len(places), ())
        chosen = chosen or inner
    unlabeled = found.labels.count(UNLABELED)
    account = Found(len(places), found.classes, unlabeled, dict(left_out), chosen, found.notes)
    numbers, _, offsets, sizes = zip(*places, strict=True) if places else ((), (), (), ())
    return ArchiveSource(
        found.keys,
        found.labels,
        found.class_names,
        account,
        *archives,
        np.array(numbers, np.uint32),
        np.array(offsets, np.uint64),
        np.array(sizes, np.uint64),
        several=found.several,
    )


def _numbered(archives: Sequence[str]) -> bool:
    """Whether several tars have one name and numbers, as shards do; n01440764 is no such name."""
    names = [_SHARD.fullmatch(stem(archive)) for archive in archives]
    return len(names) > 1 and all(names) and len({name[1] for name in names if name}) == 1


def _prefixes(archives: Sequence[str]) -> list[str]:
    """What stands before the members' paths: nothing, or the archive's name among several.

    Archives of one name in several folders are named by the folders that differ.
    """
    if len(archives) == 1:
        return [""]
    folders = [archive.rpartition("/")[0].split("/") for archive in archives]
    for depth in range(max(map(len, folders)) + 1):
        names = [
            "/".join([*folder[len(folder) - depth :], stem(archive)]) + "/"
            for folder, archive in zip(folders, archives, strict=True)
        ]
        if len(set(names)) == len(names):
            return names
    twice = next(name for name in names if names.count(name) > 1)
    raise InputError(f"two archives are both called {twice.strip('/')}: rename one of them")


def _remove(path: str, owner: int) -> None:
    """Remove a temporary file, but not from a worker that merely inherited it."""
    if os.getpid() == owner:
        Path(path).unlink(missing_ok=True)
