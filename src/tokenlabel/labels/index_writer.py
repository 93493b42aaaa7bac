"""Writing an index of any number of records in bounded memory (layout: `tokenlabel.labels.index`)."""

from __future__ import annotations

import shutil
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from tokenlabel.columns import Texts
from tokenlabel.errors import InputError
from tokenlabel.files import sha256_of
from tokenlabel.labels.index import ENTRY, HEAD, MAGIC, hash_of

__all__ = ["IndexWriter"]

_PART_BITS = 6  # the table is sorted in 64 parts, one in memory at a time
_A_BUCKET = 8  # entries, on average
_MOST = (1 << 32) - 1  # records of one store


class IndexWriter:
    """Collects records, in store order, in files of a scratch folder, and makes the index of them."""

    def __init__(self, scratch: Path) -> None:
        self._folder = scratch
        self._files: dict[str, IO[bytes]] = {}
        self._count = self._text_size = 0

    def extend(self, keys: Sequence[str], offsets: Sequence[int]) -> None:
        """Some records, an offset in its shard for each key; best thousands at once."""
        texts = [key.encode() for key in keys]
        entries = np.empty(len(texts), ENTRY)
        entries["hash"] = np.frombuffer(b"".join([hash_of(text) for text in texts]), "<u8")
        entries["number"] = np.arange(self._count, self._count + len(texts), dtype=np.int64)
        ends = self._text_size + np.cumsum(list(map(len, texts)), dtype="<u8")
        self._file("offsets").write(np.array(offsets, "<u8").tobytes())
        self._file("ends").write(ends.tobytes())
        self._file("texts").write(b"".join(texts))
        entries = entries[np.argsort(entries["hash"], kind="stable")]
        parts = np.arange(1, 1 << _PART_BITS, dtype=np.uint64) << np.uint64(64 - _PART_BITS)
        for number, part in enumerate(np.split(entries, entries["hash"].searchsorted(parts))):
            if len(part):
                self._file(f"part-{number}").write(part.tobytes())
        self._count += len(texts)
        self._text_size = int(ends[-1]) if len(ends) else self._text_size

    def write(self, path: Path) -> str:
        """Write the index, and return its sha256 (hex). Raises InputError for a key that comes twice."""
        if self._count > _MOST:
            raise InputError(f"a label store has at most {_MOST:,} records: divide it into several")
        for name in ("offsets", "ends", "texts"):
            self._file(name)
        for file in self._files.values():
            file.close()
        bits = max(_PART_BITS, (self._count // _A_BUCKET).bit_length())
        head = HEAD.pack(MAGIC, self._count, bits, self._text_size, 0)[: HEAD.size - 32]
        with path.open("wb") as out:
            out.write(HEAD.pack(MAGIC, self._count, bits, self._text_size, zlib.crc32(head)))
            self._copy("offsets", out)
            self._copy("ends", out)
            keys = self._keys()
            with (self._folder / "starts").open("wb") as starts:
                before = 0
                for number in range(1 << _PART_BITS):
                    part = self._sorted_part(number, keys)
                    out.write(part.tobytes())
                    starts.write(_starts(part["hash"], number, bits, before).tobytes())
                    before += len(part)
                starts.write(np.array([before], "<u4").tobytes())
            self._copy("starts", out)
            self._copy("texts", out)
        return sha256_of(path)

    def _file(self, name: str) -> IO[bytes]:
        if name not in self._files:
            self._files[name] = (self._folder / name).open("wb")
        return self._files[name]

    def _copy(self, name: str, out: IO[bytes]) -> None:
        with (self._folder / name).open("rb") as part:
            shutil.copyfileobj(part, out, 1 << 20)

    def _keys(self) -> Texts:
        if not self._text_size:
            return Texts(b"", np.zeros(self._count, "<u8"))
        texts = np.memmap(self._folder / "texts", np.uint8, "r")
        return Texts(memoryview(texts.data), np.memmap(self._folder / "ends", "<u8", "r"))

    def _sorted_part(self, number: int, keys: Texts) -> NDArray[np.void]:
        """The entries whose hashes begin with `number`, sorted."""
        path = self._folder / f"part-{number}"
        part = np.fromfile(path, ENTRY) if path.exists() else np.empty(0, ENTRY)
        part = part[np.argsort(part["hash"], kind="stable")]
        hashes = part["hash"]
        for value in np.unique(
            hashes[1:][hashes[1:] == hashes[:-1]]
        ):  # one key twice, or by chance
            group = part["number"][hashes == value]
            named = [keys[int(i)] for i in group]
            twice, count = Counter(named).most_common(1)[0]
            if count > 1:
                raise InputError(f"{twice!r} comes twice: keys of a label store are unique")
        return part


def _starts(
    hashes: NDArray[np.uint64], number: int, bits: int, before: int
) -> NDArray[np.unsignedinteger]:
    """Where in the table each of the part's buckets starts; `before` entries precede the part."""
    inner = bits - _PART_BITS
    firsts = (np.arange(1 << inner, dtype=np.uint64) << np.uint64(64 - bits)) + np.uint64(
        number << (64 - _PART_BITS)
    )
    return (before + hashes.searchsorted(firsts)).astype("<u4")
