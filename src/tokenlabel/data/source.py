"""`ImageSource`: labelled images under stable keys, wherever they are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tokenlabel.errors import InputError, nearest

__all__ = ["ImageSource", "open_source", "source_fingerprint"]

_HUB_PREFIXES = ("hf://", "hfds/")
_ARCHIVES = (".tar", ".tar.gz", ".tgz")


class ImageSource(Protocol):
    """Images that may be read in any order, by any process; the order of the keys never changes."""

    @property
    def keys(self) -> Sequence[str]:
        """A unique name for each image: "cat/0001.jpg". It finds the image's label record."""
        ...

    @property
    def labels(self) -> Sequence[int]:
        """The class of each image, an index of `class_names`."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """The encoded image file. Raises InputError when it can no longer be read."""
        ...


def open_source(location: str, split: str | None = None) -> ImageSource:
    """Open the images at `location`, whatever their form.

    - a folder with one subfolder a class (or of `split` folders, or of one tar a split or class);
    - a `.tar`, `.tar.gz` or `.tgz` of the same layout, or a tar of one tar a class;
    - WebDataset shards: `shards-{0000..0099}.tar`, `shards-*.tar`, local or any fsspec URL;
    - Hugging Face data sets: `hfds/owner/name`, a folder made by `save_to_disk`, `.parquet` files.

    `split` names the part of a data set that has parts ("train", "validation"); keys are relative
    to it, so a folder and a tar of it have the same keys. Raises InputError where nothing is found.
    """
    if location.startswith(_HUB_PREFIXES):
        from tokenlabel.data.hugging_face import open_hub

        return open_hub(location.split("/", 1)[1].lstrip("/"), split)
    if location.endswith(".parquet"):
        from tokenlabel.data.hugging_face import open_parquet

        return open_parquet(location, split)
    from tokenlabel.data.archives import open_archives

    if "://" in location or any(sign in location for sign in "*{"):
        return open_archives([location], split)
    return _open_path(Path(location).expanduser(), split)


def _open_path(path: Path, split: str | None) -> ImageSource:
    from tokenlabel.data.archives import open_archives
    from tokenlabel.data.folders import open_folder

    if not path.exists():
        siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"no images at {path}: it does not exist{nearest(str(path), siblings)}")
    if path.is_file():
        if not path.name.lower().endswith(_ARCHIVES):
            raise InputError(
                f"{path} is no data set: give a folder, a {', '.join(_ARCHIVES)} or .parquet file"
            )
        return open_archives([str(path)], split)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        from tokenlabel.data.hugging_face import open_saved

        return open_saved(path, split)
    if any(path.glob("*.parquet")):
        from tokenlabel.data.hugging_face import open_parquet

        return open_parquet(str(path / "*.parquet"), split)
    archives = sorted(p for p in path.iterdir() if p.name.lower().endswith(_ARCHIVES))
    if split is not None:
        named = [p for p in archives if p.name.split(".")[0] == split]
        if named and not (path / split).is_dir():
            return open_archives([str(named[0])], None)
    if archives and not any(p.is_dir() for p in path.iterdir()):
        return open_archives([str(p) for p in archives], split)
    return open_folder(path, split)


def source_fingerprint(source: ImageSource) -> str:
    """sha256 (hex) of keys, labels and class names: equal for equal data, whatever its form."""
    digest = hashlib.sha256()
    for name in source.class_names:
        digest.update(name.encode() + b"\0")
    for key, label in zip(source.keys, source.labels, strict=True):
        digest.update(f"{key}\0{int(label)}\0".encode())
    return digest.hexdigest()
