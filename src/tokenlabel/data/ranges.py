"""Files, local or remote, read by ranges of their bytes, patiently."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import fsspec

from tokenlabel.data.reading import read_patiently
from tokenlabel.errors import InputError

__all__ = ["Ranges", "file_version", "files_version", "read_ranges"]

# a tar's header, a short note and the next header: what lies between two images of a shard
_A_HEADER = 3 * 512 + 1
_NEAR = 1 << 16  # skipping less than this costs more than reading it
_MOST_AHEAD = 1 << 20


class Ranges(io.RawIOBase):
    """A file that reads little at each place it is sent to, and more where it is read on and on."""

    def __init__(self, location: str) -> None:
        """Raises InputError where there is no such file."""
        super().__init__()
        self.location = location
        self._local: int | None = None
        if "://" in location:
            filesystem, path = fsspec.core.url_to_fs(location)
            self._cat: Callable[..., bytes] = lambda start, end: filesystem.cat_file(
                path, start=start, end=end
            )
            self.size = int(self._patiently(lambda: filesystem.info(path))["size"] or 0)
        else:
            file = self._local = self._patiently(lambda: os.open(location, os.O_RDONLY))
            self._cat = lambda start, end: os.pread(file, end - start, start)
            self.size = os.fstat(file).st_size
        self._at = self._start = 0
        self._block = b""
        self._near = 0  # how often in a row a place was near the one before
        self._ahead = _A_HEADER

    def range(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`."""
        return bytes(self._patiently(lambda: self._cat(start, end)))

    def whole(self, limit: int) -> bytes:
        """All bytes, of a file of at most `limit`. Raises InputError for a larger one."""
        if self.size > limit:
            raise InputError(f"{self.location} is larger than {limit} bytes: it is refused")
        return self.range(0, self.size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self.size if size < 0 else min(self._at + size, self.size)
        if self._at >= end:
            return b""
        if not self._start <= self._at <= end <= self._start + len(self._block):
            self._fetch(end)
        found = self._block[self._at - self._start : end - self._start]
        self._at += len(found)
        return found

    def _fetch(self, end: int) -> None:
        before = self._start + len(self._block)
        near = self._block and self._start <= self._at < before + _NEAR
        self._near = self._near + 1 if near else 0
        if self._near == 0:
            self._ahead = _A_HEADER
        elif self._near > 1:  # once may be a note that is longer than most
            self._ahead = min(4 * self._ahead, _MOST_AHEAD)
        self._block = self.range(self._at, min(max(end, self._at + self._ahead), self.size))
        self._start = self._at

    def close(self) -> None:
        if self._local is not None:
            os.close(self._local)
            self._local = None
        super().close()

    def _patiently(self, read: Callable[[], Any]) -> Any:
        return read_patiently(read, self.location, remote="://" in self.location)


def read_ranges(places: Sequence[tuple[str, int, int]], what: str) -> list[bytes]:
    """The bytes of (URL, start, end), with all requests in flight together. Raises StorageError."""
    filesystem = fsspec.core.url_to_fs(places[0][0])[0]
    paths = [filesystem._strip_protocol(url) for url, _, _ in places]
    starts, ends = [start for _, start, _ in places], [end for _, _, end in places]

    def read() -> list[bytes]:
        found: list[bytes] = filesystem.cat_ranges(paths, starts, ends, on_error="raise")
        return found

    return read_patiently(read, what, remote=True)


def file_version(location: str) -> str:
    """Size and time of the last change of a file, or a remote one's size and tag. Raises InputError."""
    if "://" not in location:
        status = read_patiently(Path(location).stat, location)
        return f"{status.st_size} {status.st_mtime_ns}"
    filesystem, path = fsspec.core.url_to_fs(location)
    facts = read_patiently(lambda: filesystem.info(path), location, remote=True)
    names = ("size", "ETag", "etag", "LastModified", "mtime", "last_modified", "created")
    return " ".join(str(facts[name]) for name in names if facts.get(name))


def files_version(locations: Iterable[str]) -> str:
    """sha256 (hex) of the versions of several files."""
    digest = hashlib.sha256()
    for location in locations:
        digest.update(f"{file_version(location)}\0".encode())
    return digest.hexdigest()
