"""Images inside tar files: class folders, a tar a class, or WebDataset shards; local or remote.

Members are found once and then read by their byte ranges, so that access is random, needs no open
tar, and works from any number of processes.
"""

from __future__ import annotations

import os
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import fsspec

from tokenlabel.data.classes import classify_by_folder
from tokenlabel.data.names import stem
from tokenlabel.data.reading import files_version, read_patiently
from tokenlabel.data.shards import NOTES, classify_by_note
from tokenlabel.data.source import UNLABELED, Found, Listing
from tokenlabel.data.splits import Part, choose_part, file_part, parts_among, top_folders
from tokenlabel.data.tar import Member, members_of, unpacked
from tokenlabel.data.walk import is_visible, sift
from tokenlabel.errors import InputError

__all__ = ["open_archives"]


class _Unpacked:
    """Owns what compressed archives were unpacked to; shared by all copies of a source."""


@dataclass(frozen=True)
class ArchiveSource(Listing):
    """Images that are byte ranges of tar files."""

    members: Sequence[Member]
    archives: Sequence[str]  # as they were named, packed or not
    _handles: dict[str, int] = field(default_factory=dict, repr=False)
    unpacked: _Unpacked = field(default_factory=_Unpacked, repr=False)

    def version(self) -> str:
        return files_version(self.archives)

    def read(self, index: int) -> bytes:
        member = self.members[index]
        what = f"{member.path} from {member.archive}"
        remote = "://" in member.archive
        data = read_patiently(lambda: self._bytes(member), what, remote=remote)
        if len(data) != member.size:
            raise InputError(f"{member.archive} was cut short: {member.path} is not whole in it")
        return data

    def _bytes(self, member: Member) -> bytes:
        archive, _, offset, size = member
        if "://" in archive:
            filesystem, remote = fsspec.core.url_to_fs(archive)
            return bytes(filesystem.cat_file(remote, offset, offset + size))
        if archive not in self._handles:
            self._handles[archive] = os.open(archive, os.O_RDONLY)
        return os.pread(self._handles[archive], size, offset)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_handles": {}}  # file descriptors belong to one process


def open_archives(
    archives: Sequence[str], split: str | None, part: Part | None, *, whole_folder: bool
) -> Listing:
    """The images inside tar files (paths or fsspec URLs) as one source.

    Where images have `.cls` or `.json` notes beside them, they are WebDataset shards; else an
    image's folder, or its tar among several, is its class. Where the files' names say parts, the
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
    images: dict[str, Member] = {}
    notes: dict[str, bytes] = {}
    temporary: list[str] = []
    try:
        for archive, prefix in zip(archives, _prefixes(archives), strict=True):
            plain = unpacked(archive, temporary)
            for member, note in members_of(plain, archive, NOTES, left_out):
                path = prefix + member.path
                if path in images or path in notes:
                    raise InputError(f"{archive} holds {member.path} twice: names must be unique")
                if note is not None and is_visible(member.path):
                    notes[path] = note
                elif sift(member.path, left_out):
                    images[path] = member
        source = _source(images, notes, left_out, split, part, where, chosen, archives)
    except BaseException:
        for path in temporary:
            _remove(path, os.getpid())
        raise
    for path in temporary:
        weakref.finalize(source.unpacked, _remove, path, os.getpid())
    return source


def _source(
    images: dict[str, Member],
    notes: dict[str, bytes],
    left_out: Counter[str],
    split: str | None,
    part: Part | None,
    where: str,
    chosen: str | None,
    archives: Sequence[str],
) -> ArchiveSource:
    keys = {path: member.path for path, member in images.items()}
    found = classify_by_note(keys, notes, left_out, where)
    if found is not None:
        choose_part((), split, part, where)  # shards have no parts within: a split is refused
        members = list(images.values())
    else:
        tops = top_folders(images)
        inner = choose_part(parts_among(tops), split, part, where, tops)
        base = f"{inner}/" if inner else ""
        within = [path.removeprefix(base) for path in images if path.startswith(base)]
        found = classify_by_folder(within, where)
        members = [images[base + key] for key in found.keys]
        chosen = chosen or inner
    unlabeled = found.labels.count(UNLABELED)
    classes = len(found.class_names)
    account = Found(len(members), classes, unlabeled, dict(left_out), chosen, found.notes)
    return ArchiveSource(found.keys, found.labels, found.class_names, account, members, archives)


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
