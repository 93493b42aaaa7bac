"""`Index`: where the record of each key stands, for any number of records.

One memory-mapped file: opening reads its head alone, and the processes of a loader share its pages.
Records are numbered in the order of their shards. `tokenlabel.labels.index_writer` writes it.

Layout (little-endian): a head of 64 bytes (magic, number of records N, bits b of the table, bytes of
text, CRC-32 of these); then

- offsets u64 [N] of each record in its shard, and ends u64 [N] of each key's text;
- the hash table: (hash u64, record number u32) [N] by rising hash, 12 bytes each;
- starts u32 [2^b + 1]: the place in the table of the first hash whose top b bits are so much or more;
- the keys' texts.

The first version (magic TLINDEX1) has no table: after the offsets come CRC-32 hashes u32 [N] in rising
order, the record number u32 [N] of each, ends u32 [N], and the texts.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenlabel.columns import Texts
from tokenlabel.errors import InputError

__all__ = ["ENTRY", "FILE_NAME", "HEAD", "MAGIC", "Index", "hash_of", "open_index"]

FILE_NAME = "index.tli"
MAGIC = b"TLINDEX2"
HEAD = struct.Struct("<8sQQQI28x")
_TWO = struct.Struct("<II")
ENTRY = np.dtype([("hash", "<u8"), ("number", "<u4")])

_FIRST_MAGIC = b"TLINDEX1"
_FIRST_HEAD = struct.Struct("<8sQ")
_CHECKED_WHOLE = 1 << 27  # bytes; of larger files `labels verify` alone compares the checksum
_LONGEST_KEY = (1 << 16) - 1


def open_index(path: Path, sha256: str) -> Index:
    """The index in a file, whose checksum its manifest says. Raises InputError where it is damaged.

    Files up to 128 MB are compared with the checksum. In a larger one a damaged place may hide a key,
    which is reported as missing; it cannot give a wrong label, for records hold their keys.
    """
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            # read, not mapped: it would stay in memory
            whole = len(data) > _CHECKED_WHOLE or (
                hashlib.file_digest(file, "sha256").hexdigest() == sha256
            )
    except (FileNotFoundError, ValueError):
        raise InputError(f"{path} is missing or empty: the label store is not whole") from None
    if not whole:
        raise InputError(f"{path} is damaged: its checksum does not match the manifest")
    return (_FirstVersion if data[:8] == _FIRST_MAGIC else _HashTable)(data, path)


class Index:
    """Finds a key's record; see the module's text."""

    offsets: NDArray[Any]
    keys: Texts

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return len(self.offsets)

    def find(self, key: str) -> int:
        """The record number of a key, or -1."""
        text = key.encode()
        for number in self._candidates(text):
            if self._text(number) == text:
                return number
        return -1

    def _candidates(self, text: bytes) -> Iterable[int]:
        """Numbers of the records whose keys have the hash of `text`."""
        raise NotImplementedError

    def _text(self, number: int) -> bytes:
        if number >= len(self):
            raise self._damage("it names records that are not there")
        start = int(self.keys.ends[number - 1]) if number else 0
        end = int(self.keys.ends[number])
        if not start <= end <= min(start + _LONGEST_KEY, len(self.keys.content)):
            raise self._damage("its keys do not fit its records")
        return bytes(self.keys.content[start:end])

    def _damage(self, what: str) -> InputError:
        return InputError(f"{self._path} is damaged: {what}")


class _HashTable(Index):
    def __init__(self, data: memoryview, path: Path) -> None:
        super().__init__(path)
        if len(data) < HEAD.size:
            raise self._damage("it is cut short")
        magic, count, bits, text_size, checksum = HEAD.unpack_from(data)
        if magic != MAGIC or checksum != zlib.crc32(data[: HEAD.size - 32]):
            raise self._damage("its head is not that of an index")
        sizes = (8 * count, 8 * count, ENTRY.itemsize * count, 4 * (2**bits + 1), text_size)
        if bits > 64 or HEAD.size + sum(sizes) != len(data):
            raise self._damage(f"its size does not fit its {count} records")
        places = HEAD.size + np.cumsum([0, *sizes])
        self.offsets = np.frombuffer(data, "<u8", count, places[0])
        self._table = data[places[2] : places[3]]
        self._starts = data[places[3] : places[4]]
        self._shift = 64 - bits
        self.keys = Texts(data[places[4] :], np.frombuffer(data, "<u8", count, places[1]))

    def _candidates(self, text: bytes) -> Iterator[int]:
        wanted = hash_of(text)
        bucket = int.from_bytes(wanted, "little") >> self._shift
        first, last = _TWO.unpack_from(self._starts, 4 * bucket)
        entries = bytes(self._table[ENTRY.itemsize * first : ENTRY.itemsize * last])
        place = entries.find(wanted)
        while place >= 0:
            if place % ENTRY.itemsize == 0:
                yield int.from_bytes(entries[place + 8 : place + 12], "little")
            place = entries.find(wanted, place + 1)


class _FirstVersion(Index):
    def __init__(self, data: memoryview, path: Path) -> None:
        super().__init__(path)
        _, count = _FIRST_HEAD.unpack_from(data) if len(data) >= _FIRST_HEAD.size else (b"", 0)
        if count > len(data) or len(data) < _FIRST_HEAD.size + 20 * count:
            raise self._damage(f"it is shorter than its {count} records need")
        place = _FIRST_HEAD.size
        self.offsets = np.frombuffer(data, "<u8", count, place)
        self._hashes, self._order, ends = (
            np.frombuffer(data, "<u4", count, place + size * count) for size in (8, 12, 16)
        )
        texts = data[place + 20 * count :]
        bounds = np.concatenate(([0], ends.astype(np.int64), [len(texts)]))
        if (np.diff(bounds) < 0).any() or (count and int(self._order.max()) >= count):
            raise self._damage("its keys do not fit its records")
        self.keys = Texts(texts, ends)

    def _candidates(self, text: bytes) -> Iterable[int]:
        wanted = np.uint32(zlib.crc32(text))
        low, high = (self._hashes.searchsorted(wanted, side) for side in ("left", "right"))
        return map(int, self._order[low:high])


def hash_of(text: bytes) -> bytes:
    """The eight bytes, a little-endian number, by which a key is found."""
    return hashlib.blake2b(text, digest_size=8).digest()
