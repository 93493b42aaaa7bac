"""Classes from folder names: the layout `class/image.jpg`, in folders as in archives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from timm.data.readers.img_extensions import get_img_extensions
from timm.utils.misc import natural_key

from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError, nearest

__all__ = ["Classified", "classify_by_folder", "is_image", "open_folder"]

_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


class Classified(NamedTuple):
    """Image paths in the order of their keys, with classes."""

    paths: list[str]
    keys: list[str]
    labels: list[int]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class FolderSource:
    """Images in the subfolders of a folder."""

    root: Path
    keys: Sequence[str]
    labels: Sequence[int]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> bytes:
        path = self.root / self.keys[index]
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read image {path}: {error.strerror}") from error


def open_folder(root: Path, split: str | None) -> ImageSource:
    """The images below `root` (or its folder `split`), classed by the folder that holds them."""
    paths = [
        (Path(folder) / name).relative_to(root).as_posix()
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
        if is_image(name)
    ]
    found = classify_by_folder(paths, split, str(root))
    base = root / found.paths[0].removesuffix(found.keys[0])
    return FolderSource(base, found.keys, found.labels, found.class_names)


def is_image(path: str) -> bool:
    """Whether the suffix is one that timm reads as an image."""
    return PurePosixPath(path).suffix.lower() in get_img_extensions(as_set=True)


def classify_by_folder(paths: Sequence[str], split: str | None, where: str) -> Classified:
    """Order image paths and name their classes as timm's readers do: leaf folders, natural order.

    Keys are relative to the split's folder, named by `split` or the only one there. Images of a
    flat folder share one class, whose name is empty. Raises InputError naming `where`.
    """
    suffixes = ", ".join(sorted(get_img_extensions()))
    if not paths:
        raise InputError(f"no images in {where}: looked for {suffixes} in it and its folders")
    prefix = _split_prefix(paths, split, where)
    ordered = sorted((path for path in paths if path.startswith(prefix)), key=natural_key)
    keys = [path.removeprefix(prefix) for path in ordered]
    classes = [PurePosixPath(key).parent.name for key in keys]
    class_names = tuple(sorted(set(classes), key=natural_key))
    if "" in class_names and len(class_names) > 1:
        stray = keys[classes.index("")]
        raise InputError(
            f"{where} holds class folders and also {stray} beside them: move it into one"
        )
    index = {name: i for i, name in enumerate(class_names)}
    return Classified(ordered, keys, [index[name] for name in classes], class_names)


def _split_prefix(paths: Sequence[str], split: str | None, where: str) -> str:
    """The leading folder of the split, with its slash, or "" where the data set has no parts."""
    tops = {path.split("/", 1)[0] for path in paths if "/" in path}
    if split is not None:
        if split not in tops:
            held = ", ".join(sorted(tops)[:8]) or "images only"
            raise InputError(
                f"no split {split!r} in {where}{nearest(split, tops)}: it holds {held}"
            )
        return f"{split}/"
    splits = sorted(tops & _SPLIT_NAMES)
    if not splits or len(splits) < len(tops):
        return ""
    if len(splits) > 1:
        raise InputError(f"{where} holds the splits {', '.join(splits)}: say which one to read")
    nested = all(path.count("/") >= 2 for path in paths)
    return f"{splits[0]}/" if nested else ""
