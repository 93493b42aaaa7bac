"""One shard: a file of checksummed records, appended to by one process at a time.

A shard is written as `<name>.part` under a file lock that the system releases when its holder dies,
and renamed when finished. A killed writer leaves a `.part` file whose last record may be cut short;
the next one keeps the whole records and goes on behind them.

Layout (little-endian): the magic bytes, then records one after another: CRC-32 of all that follows
in the record, payload length, key length, kind, key (UTF-8), payload.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from tokenlabel.errors import InputError

__all__ = ["Record", "ShardWriter", "read_record", "scan", "shard_name"]

MAGIC = b"TLLABEL1"
Kind = Literal["label", "left out"]

_HEAD = struct.Struct("<IIHB")
_CHECKED_FROM = 4  # the checksum covers all but itself
_KINDS: tuple[Kind, ...] = ("label", "left out")


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.tll"


@dataclass(frozen=True, slots=True)
class Record:
    """A label's payload, or the reason why a sample was left out."""

    key: str
    kind: Kind
    payload: bytes | memoryview


class BrokenRecord(Exception):
    """The bytes at an offset are no whole, undamaged record."""


def write_record(record: Record) -> bytes:
    key = record.key.encode()
    rest = struct.pack("<IHB", len(record.payload), len(key), _KINDS.index(record.kind))
    rest = b"".join((rest, key, record.payload))
    return zlib.crc32(rest).to_bytes(4, "little") + rest


def read_record(data: memoryview, at: int) -> tuple[Record, int]:
    """The record at an offset, and where it ends. Raises BrokenRecord rather than misread."""
    body = at + _HEAD.size
    if at < 0 or body > len(data):
        raise BrokenRecord("it is cut short")
    checksum, payload_size, key_size, kind = _HEAD.unpack_from(data, at)
    end = body + key_size + payload_size
    if end > len(data):
        raise BrokenRecord("it is cut short")
    if zlib.crc32(data[at + _CHECKED_FROM : end]) != checksum:
        raise BrokenRecord("its checksum does not match")
    key = str(data[body : body + key_size], "utf-8")
    return Record(key, _KINDS[kind], data[body + key_size : end]), end


def scan(data: memoryview) -> Iterator[tuple[int, int, Record]]:
    """(start, end, record) of every record from the front. Raises BrokenRecord at a bad one."""
    if data[: len(MAGIC)] != MAGIC:
        raise BrokenRecord("the shard does not begin with the magic bytes")
    at = len(MAGIC)
    while at < len(data):
        record, end = read_record(data, at)
        yield at, end, record
        at = end


class ShardWriter:
    """Appends records to one shard. Get one from `claim`."""

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self._file = file
        self.keys: list[str] = []  # of the records written so far, left-out samples included
        self._ends = [len(MAGIC)]
        self._recover()

    @classmethod
    def claim(cls, path: Path) -> Self | None:
        """The writer of a shard, or None if it is finished or another process is writing it."""
        if path.exists():
            return None
        part = _part(path)
        file = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
        if not _lock(file, part):
            os.close(file)
            return None
        if not part.exists() or not os.path.samestat(os.fstat(file), part.stat()):
            os.close(file)  # its writer finished it in the meantime
            return None
        return cls(path, file)

    def append(self, key: str, payload: bytes, kind: Kind = "label") -> None:
        data = write_record(Record(key, kind, payload))
        try:
            written = os.pwrite(self._file, data, self._ends[-1])
            if written < len(data):  # a disk fills in the middle of a record; the next try says so
                os.pwrite(self._file, data[written:], self._ends[-1] + written)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise InputError(
                    f"no space left for {self.path}: make room and run the same command again,"
                    " it goes on from here"
                ) from error
            raise
        self.keys.append(key)
        self._ends.append(self._ends[-1] + len(data))

    def keep(self, count: int) -> None:
        """Forget all but the first `count` records."""
        del self.keys[count:], self._ends[count + 1 :]
        os.ftruncate(self._file, self._ends[-1])

    def finish(self) -> None:
        os.fsync(self._file)
        _part(self.path).rename(self.path)
        self.release()

    def discard(self) -> None:
        """Give up a shard that got no record."""
        _part(self.path).unlink()
        self.release()

    def release(self) -> None:
        """Stop writing; an unfinished shard can be claimed again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _recover(self) -> None:
        data = memoryview(_part(self.path).read_bytes())
        try:
            for _, end, record in scan(data):
                self.keys.append(record.key)
                self._ends.append(end)
        except BrokenRecord:
            pass  # the tail that a killed writer left, or an empty new file
        os.pwrite(self._file, MAGIC, 0)
        self.keep(len(self.keys))


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _lock(file: int, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise InputError(
            f"cannot lock {path} ({error.strerror}): choose an output folder on a"
            " file system that has locks"
        ) from error
    return True
