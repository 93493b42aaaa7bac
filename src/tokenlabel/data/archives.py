"""Images inside tar files: class folders, a tar a class, or WebDataset shards; local or remote.

Members are found once and then read by their byte ranges, so that access is random, needs no open
tar, and works from any number of processes.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tarfile
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import fsspec

from tokenlabel.data.folders import classify_by_folder, is_image
from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError

__all__ = ["open_archives"]

_NOTES = ("cls", "json")  # what a WebDataset sample keeps its class in


class _Member(NamedTuple):
    """One file inside a tar: the tar's place, the file's path in it, and its bytes."""

    archive: str
    path: str
    offset: int
    size: int


@dataclass
class ArchiveSource:
    """Images that are byte ranges of tar files."""

    keys: Sequence[str]
    labels: Sequence[int]
    class_names: tuple[str, ...]
    members: Sequence[_Member]
    _handles: dict[str, int] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> bytes:
        archive, path, offset, size = self.members[index]
        try:
            if "://" in archive:
                filesystem, remote = fsspec.core.url_to_fs(archive)
                data = bytes(filesystem.cat_file(remote, offset, offset + size))
            else:
                if archive not in self._handles:
                    self._handles[archive] = os.open(archive, os.O_RDONLY)
                data = os.pread(self._handles[archive], size, offset)
        except OSError as error:
            raise InputError(f"cannot read {path} from {archive}: {error}") from error
        if len(data) != size:
            raise InputError(f"{archive} was cut short: {path} is not whole in it")
        return data

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_handles": {}}  # file descriptors belong to one process


def open_archives(locations: Sequence[str], split: str | None) -> ImageSource:
    """The images inside tar files (paths, globs, brace patterns or fsspec URLs) as one source.

    Where an image has a `.cls` or `.json` file of its own name beside it, they are WebDataset
    shards; else its folder, or its tar among several, is its class. Raises InputError.
    """
    archives = [found for location in locations for found in _expand(location)]
    where = archives[0] if len(archives) == 1 else f"{archives[0]} … {archives[-1]}"
    images: list[_Member] = []
    notes: dict[str, bytes] = {}
    unpacked: list[str] = []
    for archive in archives:
        try:
            plain = archive
            if archive.endswith(("gz", "tgz")):
                unpacked.append(plain := _unpack(archive))
            with fsspec.open(plain, "rb") as file:
                _collect(file, plain, images, notes)
        except (OSError, EOFError, tarfile.TarError) as error:
            raise InputError(f"cannot read {archive} as a tar file: {error}") from error
    names = {_sample_name(image.path)[0] for image in images}
    notes = {_sample_name(path)[0]: note for path, note in sorted(notes.items(), reverse=True)}
    if names & notes.keys():
        source = _shards(images, notes, split, where)
    else:
        source = _class_folders(images, len(archives) > 1, split, where)
    for path in unpacked:
        weakref.finalize(source, _remove, path, os.getpid())
    return source


def _class_folders(
    images: Sequence[_Member], several: bool, split: str | None, where: str
) -> ArchiveSource:
    by_path = {
        f"{_stem(image.archive)}/{image.path}" if several else image.path: image for image in images
    }
    found = classify_by_folder(list(by_path), split, where)
    members = [by_path[path] for path in found.paths]
    return ArchiveSource(found.keys, found.labels, found.class_names, members)


def _shards(
    images: Sequence[_Member], notes: dict[str, bytes], split: str | None, where: str
) -> ArchiveSource:
    """Samples in the order of the shards; classes are numbers and bear them as names."""
    if split is not None:
        raise InputError(f"{where} are shards of one split: name split {split!r} in their location")
    keys = [image.path for image in images]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"two samples in {where} have the key {twice}: keys must be unique")
    labels = [_label(_sample_name(key)[0], notes, where) for key in keys]
    class_names = tuple(str(i) for i in range(max(labels) + 1))
    return ArchiveSource(keys, labels, class_names, images)


def _label(name: str, notes: dict[str, bytes], where: str) -> int:
    note = notes.get(name, b"")
    try:
        content = json.loads(note)
        return int(content["label"] if isinstance(content, dict) else content)
    except (ValueError, TypeError, KeyError):
        wanted = "a .cls file with its class number, or a .json file with a number under 'label'"
        raise InputError(f"sample {name} in {where} has no class: it needs {wanted}") from None


# -- finding members -----------------------------------------------------------------------------


def _expand(location: str) -> list[str]:
    """The archives that a path, a glob or a brace pattern stands for."""
    parts = [location]
    if "{" in location:
        try:
            from webdataset.shardlists import expand_urls
        except ImportError:
            raise InputError(
                "brace patterns of shards need: pip install tokenlabel[data]"
            ) from None
        parts = expand_urls(location)
    found = []
    for part in parts:
        if "*" in part:
            filesystem, path = fsspec.core.url_to_fs(part)
            matches = sorted(filesystem.glob(path))
            found += [filesystem.unstrip_protocol(m) if "://" in part else m for m in matches]
        else:
            found.append(part)
    if not found:
        raise InputError(f"no file matches {location}")
    return found


def _collect(file: IO[bytes], archive: str, images: list[_Member], notes: dict[str, bytes]) -> None:
    """Add an archive's images, and the notes that may say their classes."""
    for path, offset, size in _walk(file):
        if is_image(path):
            images.append(_Member(archive, path, offset, size))
        elif _sample_name(path)[1] in _NOTES:
            file.seek(offset)
            notes[path] = file.read(size)


def _walk(file: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """Path, offset and size of each file in a tar; files of a tar within stand under its name."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would keep them all
            path = str(PurePosixPath(info.name))
            if not info.isfile():
                continue
            if path.endswith(".tar"):
                inner = tar.extractfile(info)
                assert inner is not None
                for inner_path, offset, size in _walk(inner):
                    yield f"{_stem(path)}/{inner_path}", info.offset_data + offset, size
            else:
                yield path, info.offset_data, info.size


def _sample_name(path: str) -> tuple[str, str]:
    """WebDataset's split of a path at the first dot of its last part: ("a/b", "cls")."""
    name = PurePosixPath(path).name
    base, _, suffix = name.partition(".")
    return path.removesuffix(name) + base, suffix


def _stem(archive: str) -> str:
    return PurePosixPath(archive).name.split(".")[0]


def _unpack(archive: str) -> str:
    """A temporary plain tar of a gzipped one, which allows no reading out of order."""
    with (
        fsspec.open(archive, "rb") as packed,
        gzip.open(packed) as content,
        tempfile.NamedTemporaryFile(suffix=f"-{_stem(archive)}.tar", delete=False) as plain,
    ):
        shutil.copyfileobj(content, plain, 1 << 20)
    return plain.name


def _remove(path: str, owner: int) -> None:
    """Remove a temporary file, but not from a worker that merely inherited it."""
    if os.getpid() == owner:
        Path(path).unlink()
