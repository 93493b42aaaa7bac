"""Images in every form in which data is kept."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokenlabel.data.source import ImageSource


class Make:
    """The same images in every form in which data is kept."""

    @staticmethod
    def encoded(value: int, kind: str = "PNG") -> bytes:
        """A small picture of one color; `value` tells it from others."""
        buffer = io.BytesIO()
        Image.fromarray(np.full((12, 16, 3), value % 256, np.uint8)).save(buffer, kind)
        return buffer.getvalue()

    @staticmethod
    def content(files: Mapping[str, bytes] | Iterable[str]) -> Mapping[str, bytes]:
        if isinstance(files, Mapping):
            return files
        return {path: Make.encoded(i) for i, path in enumerate(files)}

    @staticmethod
    def write_files(root: Path, files: Mapping[str, bytes] | Iterable[str]) -> Path:
        """Files by their paths below `root`; paths alone get a picture each."""
        for path, data in Make.content(files).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        return root

    @staticmethod
    def write_tar(target: Path, files: Mapping[str, bytes] | Iterable[str]) -> Path:
        """A tar with members in the order given, gzipped if its name says so."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(target, "w:gz" if target.suffix in (".gz", ".tgz") else "w") as tar:
            for path, data in Make.content(files).items():
                info = tarfile.TarInfo(path)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return target

    @staticmethod
    def with_notes(files: Mapping[str, bytes], classes: Mapping[str, object]) -> dict[str, bytes]:
        """A WebDataset shard's files: each image with a .json note of its class."""
        pairs: dict[str, bytes] = {}
        for path, data in files.items():
            pairs[path] = data
            pairs[f"{path.rpartition('.')[0]}.json"] = json.dumps({"label": classes[path]}).encode()
        return pairs

    @staticmethod
    def contents(source: ImageSource) -> list[tuple[str, str, bytes]]:
        """(key, class name, bytes) of every image, in order."""
        return [
            (key, source.class_names[label], source.read(i))
            for i, (key, label) in enumerate(zip(source.keys, source.labels, strict=True))
        ]


@pytest.fixture(scope="session")
def make() -> type[Make]:
    return Make
