"""`Manifest`: what a label store says of itself, as one JSON file."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tokenlabel.errors import InputError
from tokenlabel.files import inside, write_atomically
from tokenlabel.labels.codec import Codec
from tokenlabel.text import read_json

__all__ = ["FORMAT_VERSION", "LeftOut", "Manifest", "ShardInfo", "word_names"]

FORMAT_VERSION = 2  # of what is written; the first version has another index
_READ = (1, FORMAT_VERSION)
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
FILE_NAME = "manifest.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ShardInfo(_Strict):
    file: str  # a name inside the store's folder
    records: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str


class LeftOut(_Strict):
    """A sample that has no label, and why."""

    key: str
    reason: str


class Manifest(_Strict):
    """The settings of a store, and, once it is `complete`, its shards.

    `dataset` and `annotator` say where the labels come from, in the words of whoever wrote them
    (annotator, weights' hash, preprocessing, extent rule); two runs may continue one store only if
    all their settings agree.
    """

    format: Literal["tokenlabel-labels"] = "tokenlabel-labels"
    format_version: int = FORMAT_VERSION
    num_classes: int = Field(ge=1)
    class_names: tuple[str, ...] | None = None
    codec: Codec = "compact"
    shard_size: int = Field(default=10_000, ge=1)
    dataset: dict[str, Any] = {}
    annotator: dict[str, Any] = {}
    complete: bool = False
    shards: tuple[ShardInfo, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    index_sha256: str = ""
    vocabulary_sha256: str = ""
    """Of `vocabulary.safetensors`, where the labels are visual words instead of classes."""

    @property
    def words(self) -> bool:
        """Whether its "classes" are visual words, which say nothing of the images' classes."""
        return bool(self.vocabulary_sha256)

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of its classes, where they are known; words have numbers."""
        if self.words:
            return word_names(self.num_classes)
        return self.class_names

    @property
    def orientation(self) -> Literal["ignore", "apply"]:
        """Whether EXIF orientations were applied to the images that the labels were made of."""
        decode = self.dataset.get("decode")
        applied = isinstance(decode, dict) and decode.get("orientation") == "apply"
        return "apply" if applied else "ignore"

    @property
    def settings(self) -> dict[str, Any]:
        """All but the results: what must agree for two runs to write one store."""
        return self.model_dump(
            mode="json",
            exclude={
                "format_version": True,  # shards are the same in all
                "complete": True,
                "shards": True,
                "left_out": True,
                "index_sha256": True,
                "dataset": {"found"},  # the account of the data; its fingerprint is the setting
                # what is known of it; its weights are the setting
                "annotator": {"held_out", "unseen_images"},
            },
        )

    @property
    def labeled(self) -> int:
        """How many images have labels; 0 until the store is complete."""
        return sum(shard.records for shard in self.shards)

    def save(self, folder: Path) -> None:
        content = self.model_dump(mode="json")
        if not self.words:  # as before there were words: older versions read it
            del content["vocabulary_sha256"]
        text = json.dumps(content | {"checksum": _checksum(content)}, indent=1, ensure_ascii=False)
        write_atomically(folder / FILE_NAME, text.encode())

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        path = folder / FILE_NAME
        if not folder.exists():
            raise InputError(f"there is no label store {folder}: `tokenlabel annotate` makes one")
        if not path.is_file():
            raise InputError(f"{folder} is not a label store: it has no {FILE_NAME}")
        return cls.read(path, folder)

    @classmethod
    def read(cls, path: Path, folder: Path) -> Manifest:
        """The manifest in the file `path` of a store whose files are, or will be, in `folder`."""
        content = read_json(path, kind=dict)
        if content.get("format") != "tokenlabel-labels":
            raise InputError(f"{path} is not the manifest of a label store")
        version = content.get("format_version")
        if version not in _READ:
            raise InputError(
                f"{path} has format version {version}; this tokenlabel reads {_READ[0]} to {_READ[-1]}:"
                " install the version that wrote it"
            )
        if content.pop("checksum", None) != _checksum(content):
            raise InputError(f"{path} is damaged: its checksum does not match its content")
        try:
            manifest = cls.model_validate(content)
        except ValidationError as error:
            raise InputError(f"{path} is damaged: {error.errors()[0]['msg']}") from None
        for shard in manifest.shards:
            if not _PLAIN.fullmatch(shard.file):  # of ten thousand names, all are plain
                inside(folder, shard.file, links=True)
        names = manifest.class_names
        if names is not None and len(names) != manifest.num_classes:
            raise InputError(f"{path} names {len(names)} of {manifest.num_classes} classes")
        return manifest


def word_names(count: int) -> tuple[str, ...]:
    """What visual words are called: they have numbers."""
    return tuple(f"word {number}" for number in range(count))


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
