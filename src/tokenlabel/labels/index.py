"""`Index`: where the record of each key stands, for any number of records.

One memory-mapped file, so that opening a store of millions of records takes no time and the
processes of a loader share its pages. Records are numbered in the order of their shards.

Layout (little-endian): magic, number of records N, then offsets u64 [N] of each record in its
shard, CRC-32 hashes u32 [N] of the keys in rising order, the record number u32 [N] of each hash,
ends u32 [N] of each key's text, and the texts.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from tokenlabel.errors import InputError

__all__ = ["FILE_NAME", "Index", "Keys", "encode_index"]

FILE_NAME = "index.tli"
MAGIC = b"TLINDEX1"
_HEAD = struct.Struct("<8sQ")


def encode_index(keys: Sequence[str], offsets: Sequence[int]) -> bytes:
    """An index over records in store order, as a file. Raises InputError for keys that come twice."""
    texts = [key.encode() for key in keys]
    hashes = np.array([zlib.crc32(text) for text in texts], "<u4")
    order = np.argsort(hashes, kind="stable").astype("<u4")
    hashes = hashes[order]
    if len(set(keys)) < len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise InputError(f"{twice!r} comes twice: keys of a label store are unique")
    ends = np.cumsum([len(text) for text in texts], dtype="<u8")
    if len(ends) and ends[-1] >= 1 << 32:
        raise InputError(
            "the keys of one label store may have 4 GB of text: divide it into several"
        )
    return b"".join(
        (
            _HEAD.pack(MAGIC, len(keys)),
            np.array(offsets, "<u8").tobytes(),
            hashes.tobytes(),
            order.tobytes(),
            ends.astype("<u4").tobytes(),
            *texts,
        )
    )


class Index:
    """Finds a key's record; see the module's text."""

    def __init__(self, path: Path, sha256: str) -> None:
        try:
            with path.open("rb") as file:
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (FileNotFoundError, ValueError):
            raise InputError(f"{path} is missing or empty: the label store is not whole") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise InputError(f"{path} is damaged: its checksum does not match the manifest")
        _, count = _HEAD.unpack_from(data) if len(data) >= _HEAD.size else (b"", 0)
        if count > len(data) or len(data) < _HEAD.size + 20 * count:
            raise InputError(f"{path} is damaged: it is shorter than its {count} records need")
        at = _HEAD.size

        def take(dtype: str) -> NDArray[Any]:
            nonlocal at
            array = np.frombuffer(data, dtype, count, at)
            at += array.nbytes
            return array

        self.offsets = take("<u8")
        self._hashes, self._order, self._ends = take("<u4"), take("<u4"), take("<u4")
        self._texts = data[at:]
        bounds = np.concatenate(([0], self._ends.astype(np.int64), [len(self._texts)]))
        if (np.diff(bounds) < 0).any() or (count and int(self._order.max()) >= count):
            raise InputError(f"{path} is damaged: its keys do not fit its records")

    def __len__(self) -> int:
        return len(self.offsets)

    def find(self, key: str) -> int:
        """The record number of a key, or -1."""
        wanted = np.uint32(zlib.crc32(key.encode()))
        i = int(self._hashes.searchsorted(wanted))
        while i < len(self._hashes) and self._hashes[i] == wanted:
            number = int(self._order[i])
            if self.key(number) == key:
                return number
            i += 1
        return -1

    def key(self, number: int) -> str:
        start = int(self._ends[number - 1]) if number else 0
        return str(self._texts[start : int(self._ends[number])], "utf-8", "replace")


class Keys(Sequence[str]):
    """All keys of an index in store order, each read when asked for."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self._index.key(i) for i in range(*number.indices(len(self)))]
        return self._index.key(range(len(self))[number])

    def __iter__(self) -> Iterator[str]:
        return (self._index.key(i) for i in range(len(self)))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._index.find(key) >= 0
