"""`LabelStore`: the label maps of a data set, read in any order by any number of processes."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path

from tokenlabel.columns import Texts
from tokenlabel.errors import InputError, nearest
from tokenlabel.labels import index as index_file
from tokenlabel.labels.codec import decode
from tokenlabel.labels.index import open_index
from tokenlabel.labels.label_map import LabelMap
from tokenlabel.labels.manifest import FILE_NAME as MANIFEST_FILE
from tokenlabel.labels.manifest import Manifest
from tokenlabel.labels.remote import StoreFiles
from tokenlabel.labels.shard import BrokenRecord, Record, read_record
from tokenlabel.labels.vocabulary import FILE_NAME as VOCABULARY_FILE
from tokenlabel.labels.vocabulary import Vocabulary

__all__ = ["LabelStore"]

_OPEN_SHARDS = 256  # each holds a file descriptor


class LabelStore:
    """A finished store at a local path, or at any fsspec location such as `hf://` or `s3://`.

    Reading is safe from forked and spawned processes and from threads. Remote shards are copied to
    a local cache the first time they are needed. Every read checks the record's checksum and key,
    so a damaged store raises InputError and never gives a wrong label.
    """

    def __init__(self, location: str | Path) -> None:
        self._files = StoreFiles(location)
        self.location = str(location)
        self.manifest = Manifest.load(self._files.path_of(MANIFEST_FILE).parent)
        if not self.manifest.complete:
            raise InputError(
                f"{location} is unfinished: run the command that was writing it again, it goes on"
                " where it stopped"
            )
        path = self._files.path_of(index_file.FILE_NAME, sha256=self.manifest.index_sha256)
        self._index = open_index(path, self.manifest.index_sha256)
        if len(self._index) != sum(shard.records for shard in self.manifest.shards):
            raise InputError(
                f"{location} is damaged: its index has {len(self._index)} records, its manifest"
                " another number"
            )
        self._starts = [0, *accumulate(shard.records for shard in self.manifest.shards)]
        self._shard = lru_cache(_OPEN_SHARDS)(self._open_shard)

    @property
    def num_classes(self) -> int:
        """Classes, or visual words, that its labels tell apart."""
        return self.manifest.num_classes

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        """The visual words, where its labels are such. Raises InputError where they are damaged."""
        sha256 = self.manifest.vocabulary_sha256
        if not sha256:
            return None
        return Vocabulary.load(self._files.path_of(VOCABULARY_FILE, sha256=sha256), sha256)

    def __len__(self) -> int:
        return len(self._index)

    def keys(self) -> Texts:
        """The keys in store order: a lazy sequence."""
        return self._index.keys

    def __contains__(self, key: str) -> bool:
        return self._index.find(key) >= 0

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __getitem__(self, key: str) -> LabelMap:
        """The label map of a key. Raises KeyError where there is none."""
        record = self._read(self._number(key), key)
        try:
            return decode(record.payload, self.manifest.codec, self.manifest.num_classes)
        except ValueError as error:
            raise InputError(f"{self.location}: the label of {key!r} is damaged: {error}") from None

    def __repr__(self) -> str:
        what = "visual words" if self.manifest.words else "classes"
        return f"LabelStore({self.location!r}: {len(self)} images, {self.num_classes} {what})"

    def payload(self, key: str) -> bytes:
        """The encoded label map of a key, as it stands in its shard."""
        return bytes(self._read(self._number(key), key).payload)

    def __reduce__(self) -> tuple[type[LabelStore], tuple[str]]:
        return LabelStore, (self.location,)

    def _number(self, key: str) -> int:
        number = self._index.find(key)
        if number < 0:
            near = nearest(key, self.keys()[:1000])
            raise KeyError(f"{self.location} has no label for {key!r}{near}")
        return number

    def _read(self, number: int, key: str) -> Record:
        shard = bisect_right(self._starts, number) - 1
        try:
            record, _ = read_record(self._shard(shard), int(self._index.offsets[number]))
            if record.key != key or record.kind != "label":
                raise BrokenRecord(f"it holds {record.key!r}")
        except BrokenRecord as error:
            name, place = self.manifest.shards[shard].file, number - self._starts[shard]
            raise InputError(
                f"{self.location}: record {place} ({key!r}) of {name} is damaged: {error};"
                " `tokenlabel labels verify` lists all damage"
            ) from None
        return record

    def _open_shard(self, number: int) -> memoryview:
        shard = self.manifest.shards[number]
        path = self._files.path_of(shard.file, sha256=shard.sha256)
        size = path.stat().st_size if path.exists() else -1
        if size != shard.bytes or size == 0:
            found = "is missing" if size < 0 else f"has {size} bytes instead of {shard.bytes}"
            raise InputError(f"{self.location}: {shard.file} {found}")
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
