"""Hugging Face data sets: from the hub, saved on disk, or as Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError, nearest

__all__ = ["open_hub", "open_parquet", "open_saved"]


@dataclass(frozen=True)
class TableSource:
    """Images that are encoded files in a column of a table."""

    table: Any  # datasets.Dataset
    image_column: str
    keys: Sequence[str]
    labels: Sequence[int]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> bytes:
        cell = self.table[index][self.image_column]
        if cell["bytes"] is not None:
            return bytes(cell["bytes"])
        try:
            return Path(cell["path"]).read_bytes()
        except OSError as error:
            raise InputError(f"cannot read image {cell['path']}: {error.strerror}") from error


def open_hub(name: str, split: str | None) -> ImageSource:
    """The data set `owner/name` of the hub (or of its local cache)."""
    return _open(_datasets().load_dataset, name, split, name)


def open_saved(folder: Path, split: str | None) -> ImageSource:
    """A data set written by `save_to_disk`."""
    return _open(_datasets().load_from_disk, str(folder), split, str(folder))


def open_parquet(files: str, split: str | None) -> ImageSource:
    """Parquet files (a path, a glob or a URL) with a column of encoded images and one of labels."""
    if split is not None:
        raise InputError(
            f"{files} are Parquet files of one split: name {split!r} in their location"
        )

    def load(pattern: str) -> Any:
        return _datasets().load_dataset("parquet", data_files=pattern, split="train")

    return _open(load, files, None, files)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError("Hugging Face data sets need: pip install tokenlabel[data]") from None
    return datasets


def _open(load: Any, argument: str, split: str | None, where: str) -> ImageSource:
    try:
        data = load(argument)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot open data set {where}: {error}".splitlines()[0]) from error
    if isinstance(data, dict):
        data = _choose_split(data, split, where)
    return _source(data, where)


def _choose_split(splits: dict[str, Any], split: str | None, where: str) -> Any:
    held = ", ".join(splits)
    if split is None:
        if len(splits) > 1:
            raise InputError(f"{where} holds the splits {held}: say which one to read")
        return next(iter(splits.values()))
    if split not in splits:
        raise InputError(f"no split {split!r} in {where}{nearest(split, splits)}: it holds {held}")
    return splits[split]


def _source(table: Any, where: str) -> ImageSource:
    datasets = _datasets()
    features = table.features
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    encoded = [name for name, kind in features.items() if _is_encoded_image(kind)]
    if not images + encoded:
        raise InputError(f"no column of images in {where}: it has {', '.join(features)}")
    image = (images + encoded)[0]
    column = _label_column(features, where)
    if len(table) == 0:
        raise InputError(f"no images in {where}: the table is empty")
    table = table.cast_column(image, datasets.Image(decode=False))
    labels = [int(label) for label in table.data.column(column).to_pylist()]
    kind = features[column]
    names = kind.names if isinstance(kind, datasets.ClassLabel) else range(max(labels) + 1)
    return TableSource(table, image, _keys(table, image), labels, tuple(map(str, names)))


def _is_encoded_image(kind: Any) -> bool:
    """A struct of bytes and path: an image column that lost its name on the way through Parquet."""
    return isinstance(kind, dict) and set(kind) == {"bytes", "path"}


def _label_column(features: dict[str, Any], where: str) -> str:
    classes = [n for n, k in features.items() if type(k).__name__ == "ClassLabel"]
    column = next((n for n in (*classes, "label", "labels", "fine_label") if n in features), None)
    if column is None:
        raise InputError(
            f"no column of labels in {where}: name it 'label' (has {', '.join(features)})"
        )
    return column


def _keys(table: Any, image: str) -> list[str]:
    """The images' own file names where they are all there and unique, else their row numbers."""
    # Arrow's column of paths alone: the images beside it stay on disk
    paths = [cell.field("path").to_pylist() for cell in table.data.column(image).chunks]
    names = [PurePosixPath(path or "").name for chunk in paths for path in chunk]
    if all(names) and len(set(names)) == len(names):
        return names
    return [f"{row:09d}" for row in range(len(names))]
