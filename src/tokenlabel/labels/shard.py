"""One shard: a file of checksummed records, appended to by one process at a time.

A shard is written as `<name>.part` under a file lock that the system releases when its holder dies,
and renamed when finished. A killed writer leaves a `.part` file whose last record may be cut short;
the next one keeps the whole records and goes on behind them.

Layout (little-endian): the magic bytes, then records one after another: CRC-32 of all that follows
in the record, payload length, key length, kind, key (UTF-8), payload.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from tokenlabel.files import Locked, disk_errors, lock_file, locked, sync

__all__ = ["Record", "ShardWriter", "lock_of", "read_record", "scan", "shard_name"]

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
    try:
        key = str(data[body : body + key_size], "utf-8")
    except UnicodeDecodeError:
        raise BrokenRecord("its key is not UTF-8") from None
    if kind >= len(_KINDS):
        raise BrokenRecord(f"it is of the unknown kind {kind}")
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
    """Appends records to one shard. Get one from `claim` or `open`."""

    def __init__(self, path: Path) -> None:
        """Raises `Locked` where another process is writing the shard."""
        self.path = path
        self._file = -1
        self._held = ExitStack()
        self.keys: list[str] = []  # of the records written so far, left-out samples included
        self._ends = [len(MAGIC)]
        part = _part(path)
        with disk_errors(path):
            self._held.enter_context(locked(part, "the shard"))
            try:
                self._file = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
                self._recover()
            except BaseException:
                self.release()
                raise

    @classmethod
    def claim(cls, path: Path) -> Self | None:
        """The writer of a shard, or None if it is finished or another process is writing it."""
        if path.exists():
            return None
        try:
            shard = cls(path)
        except Locked:
            return None
        if path.exists():  # its writer finished it in the meantime
            shard.discard()
            return None
        return shard

    def append(self, key: str, payload: bytes, kind: Kind = "label") -> None:
        data = write_record(Record(key, kind, payload))
        with disk_errors(self.path):
            written = os.pwrite(self._file, data, self._ends[-1])
            if written < len(data):  # a disk fills in the middle of a record; the next try says so
                os.pwrite(self._file, data[written:], self._ends[-1] + written)
        self.keys.append(key)
        self._ends.append(self._ends[-1] + len(data))

    def keep(self, count: int) -> None:
        """Forget all but the first `count` records."""
        del self.keys[count:], self._ends[count + 1 :]
        os.ftruncate(self._file, self._ends[-1])

    def finish(self) -> None:
        with disk_errors(self.path):
            os.fsync(self._file)
            _part(self.path).rename(self.path)
            sync(self.path.parent)
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
        self._held.close()

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


def lock_of(path: Path) -> Path:
    """The file of the lock of a shard's writer."""
    return lock_file(_part(path))


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
