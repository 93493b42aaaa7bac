"""Writing a label store: settings first, then shards, then the index that makes it whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tokenlabel.errors import InputError
from tokenlabel.files import Locked, claim_folder, replacing, scratch
from tokenlabel.labels import index as index_file
from tokenlabel.labels.codec import Codec, encode
from tokenlabel.labels.index_writer import IndexWriter
from tokenlabel.labels.label_map import LabelMap
from tokenlabel.labels.manifest import FILE_NAME as MANIFEST_FILE
from tokenlabel.labels.manifest import FORMAT_VERSION, LeftOut, Manifest, ShardInfo
from tokenlabel.labels.shard import BrokenRecord, ShardWriter, lock_of, scan, shard_name
from tokenlabel.labels.vocabulary import FILE_NAME as VOCABULARY_FILE
from tokenlabel.labels.vocabulary import Vocabulary

__all__ = ["LabelStoreWriter", "begin", "complete", "is_store_folder"]


def is_store_folder(folder: Path) -> bool:
    """Whether a folder holds a label store, or the beginnings of one, and nothing else."""
    ours = {MANIFEST_FILE, index_file.FILE_NAME, VOCABULARY_FILE, "README.md"}
    return all(
        path.name in ours or path.name.startswith((".", "shard-")) for path in folder.iterdir()
    )


def begin(folder: Path, settings: Manifest, *, overwrite: bool = False) -> Manifest:
    """Start a store, or find the one begun with the same settings. Safe from several processes.

    Raises InputError where the folder holds other settings or something else; `overwrite` puts the
    store beside what is there.
    """
    if not (folder / MANIFEST_FILE).exists():
        claim_folder(folder, overwrite=overwrite, ours=is_store_folder)
        settings.save(folder)
        return settings
    found = Manifest.load(folder)
    models = [_model(manifest.annotator) for manifest in (found, settings)]
    if None not in models and models[0] != models[1]:
        raise InputError(
            f"the labels in {folder} were made by another model, {models[0]}, now it is {models[1]}:"
            " use that model or another output folder"
        )
    for name, value in settings.settings.items():
        before = found.settings[name]
        if before != value:
            if isinstance(value, dict):
                name, before, value = next(
                    (f"{name}.{key}", before.get(key), value.get(key))
                    for key in {**value, **before}
                    if before.get(key) != value.get(key)
                )
            raise InputError(
                f"{folder} was started with {name} = {before!r}, now it is {value!r}:"
                " use the same settings or another output folder"
            )
    return found


def _model(annotator: Mapping[str, Any]) -> str | None:
    """The network that makes the labels, if one does, by its name and its weights."""
    weights = annotator.get("weights_sha256")
    return (
        f"{annotator.get('model')} (weights {weights[:12]})" if isinstance(weights, str) else None
    )


def complete(folder: Path, shards: int) -> Manifest | None:
    """Index the store if all its shards are finished, and mark it complete; else None.

    Any number of processes may call this: all write the same bytes. It takes the memory of one shard.
    """
    paths = [folder / shard_name(number) for number in range(shards)]
    if not all(path.exists() for path in paths):
        return None
    for path in paths:  # of writers that were killed; nobody starts on a finished shard
        lock_of(path).unlink(missing_ok=True)
    left_out: list[LeftOut] = []
    infos = []
    with scratch(folder) as aside:
        index = IndexWriter(aside)
        for path in paths:
            data = path.read_bytes()
            keys, offsets, missing = _contents(path, data)
            index.extend(keys, offsets)
            left_out += missing
            sha256 = hashlib.sha256(data).hexdigest()
            infos.append(
                ShardInfo(file=path.name, records=len(keys), bytes=len(data), sha256=sha256)
            )
        with replacing(folder / index_file.FILE_NAME) as file:
            index_sha256 = index.write(file)
    manifest = Manifest.load(folder).model_copy(
        update={
            "format_version": FORMAT_VERSION,
            "complete": True,
            "shards": tuple(infos),
            "left_out": tuple(left_out),
            "index_sha256": index_sha256,
        }
    )
    manifest.save(folder)
    return manifest


def _contents(path: Path, data: bytes) -> tuple[list[str], list[int], list[LeftOut]]:
    """Keys and offsets of a shard's labels, and the samples that it says were left out."""
    keys: list[str] = []
    offsets: list[int] = []
    left_out: list[LeftOut] = []
    try:
        for start, _, record in scan(memoryview(data)):
            if record.kind == "label":
                keys.append(record.key)
                offsets.append(start)
            else:
                left_out.append(LeftOut(key=record.key, reason=bytes(record.payload).decode()))
    except BrokenRecord as error:
        raise InputError(f"{path} is damaged: {error}; delete it and run again") from None
    return keys, offsets, left_out


class LabelStoreWriter:
    """Writes label maps one after another.

    After a crash or a kill, open it again with the same settings and add the same maps in the same
    order: those already written are recognized by their key and skipped, and the finished store
    has the same bytes as an undisturbed one. Leaving a `with` block by an exception leaves an
    unfinished store that can be resumed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        codec: Codec = "compact",
        shard_size: int = 10_000,
        dataset: dict[str, Any] | None = None,
        annotator: dict[str, Any] | None = None,
        vocabulary: Vocabulary | None = None,
        overwrite: bool = False,
    ) -> None:
        """`vocabulary`: the visual words that the labels name instead of classes.

        Raises InputError where the folder holds something else, unless `overwrite` is set.
        """
        self.folder = Path(path)
        settings = Manifest(
            num_classes=num_classes,
            class_names=class_names,
            codec=codec,
            shard_size=shard_size,
            dataset=dataset or {},
            annotator=annotator or {},
            vocabulary_sha256="" if vocabulary is None else vocabulary.sha256,
        )
        self.manifest = begin(self.folder, settings, overwrite=overwrite)
        if vocabulary is not None:
            vocabulary.save(self.folder)
        self._from_before: set[str] = set()
        self._written: set[str] = set()
        self._number = 0
        while (finished := self.folder / shard_name(self._number)).exists():
            labeled, _, left_out = _contents(finished, finished.read_bytes())
            self._from_before.update(labeled, (sample.key for sample in left_out))
            self._number += 1
        self._shard: ShardWriter | None = None
        if not self.manifest.complete:
            self._shard = self._claim()
            self._from_before.update(self._shard.keys)

    def __contains__(self, key: str) -> bool:
        return key in self._from_before or key in self._written

    def add(self, key: str, label_map: LabelMap) -> None:
        """Write one map, unless an earlier, interrupted run has."""
        if label_map.num_classes != self.manifest.num_classes:
            raise ValueError(
                f"the store is of {self.manifest.num_classes} classes, the map of"
                f" {label_map.num_classes}"
            )
        if self._is_new(key):
            self._open_shard(key).append(key, encode(label_map, self.manifest.codec))

    def leave_out(self, key: str, reason: str) -> None:
        """Note that a sample has no label, and why."""
        if self._is_new(key):
            self._open_shard(key).append(key, reason.encode(), "left out")

    def close(self) -> None:
        """Finish the store; it can be read from now on."""
        if self._shard is None:
            return
        if self._shard.keys or self._number == 0:
            self._shard.finish()
            self._number += 1
        else:
            self._shard.discard()
        self._shard = None
        self.manifest = complete(self.folder, self._number) or self.manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        elif self._shard is not None:
            self._shard.release()

    def _is_new(self, key: str) -> bool:
        if key in self._written:
            raise ValueError(f"{key!r} was added twice")
        self._written.add(key)
        return key not in self._from_before

    def _open_shard(self, key: str) -> ShardWriter:
        if self._shard is None:
            raise InputError(
                f"{self.folder} is complete and cannot take {key!r}: write another store"
            )
        if len(self._shard.keys) == self.manifest.shard_size:
            self._shard.finish()
            self._number += 1
            self._shard = self._claim()
        return self._shard

    def _claim(self) -> ShardWriter:
        try:
            return ShardWriter(self.folder / shard_name(self._number))
        except Locked as error:
            raise InputError(f"another process is writing {self.folder}: {error}") from None
