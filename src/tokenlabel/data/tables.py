"""Tables of images: Hugging Face data sets (of the hub, or saved on disk) and Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tokenlabel.data.classes import Classified, classify_by_value, classify_by_values
from tokenlabel.data.names import check_key
from tokenlabel.data.reading import read_patiently
from tokenlabel.data.source import UNLABELED, Found, Listing
from tokenlabel.data.splits import Part, choose_part, file_part
from tokenlabel.errors import InputError

__all__ = ["open_hub", "open_parquet", "open_saved"]

_LABEL_COLUMNS = ("label", "labels", "fine_label")


@dataclass(frozen=True)
class TableSource(Listing):
    """Images that are encoded files in a column of a table."""

    table: Any  # datasets.Dataset
    image_column: str

    def version(self) -> str:
        return str(self.table._fingerprint)

    def read(self, index: int) -> bytes:
        cell = read_patiently(lambda: self.table[index][self.image_column], self.keys[index])
        if cell is None:
            raise InputError(f"row {index} of the table has no image")
        if cell["bytes"] is not None:
            return bytes(cell["bytes"])
        if not cell["path"]:
            raise InputError(f"row {index} of the table has neither an image nor its path")
        return read_patiently(Path(cell["path"]).read_bytes, f"image {cell['path']}")


def open_hub(name: str, split: str | None, part: Part | None) -> Listing:
    """The data set `owner/name` of the hub (or of its local cache)."""
    return _open(lambda: _datasets().load_dataset(name), split, part, name)


def open_saved(folder: Path, split: str | None, part: Part | None) -> Listing:
    """A data set written by `save_to_disk`."""
    return _open(lambda: _datasets().load_from_disk(str(folder)), split, part, str(folder))


def open_parquet(
    files: Sequence[str], split: str | None, part: Part | None, where: str, *, whole_folder: bool
) -> Listing:
    """Parquet files (paths or fsspec URLs) with a column of encoded images and one of labels.

    Where the files' names say parts, these are the parts ("train-00000-of-00002.parquet");
    `whole_folder` tells that they are all of a folder, so that one part alone is a part too.
    """
    by_part: dict[str | None, list[str]] = {}
    for file in files:
        by_part.setdefault(file_part(file), []).append(file)
    chosen = None
    if None not in by_part and len(by_part) > (0 if whole_folder else 1):
        chosen = choose_part([name for name in by_part if name], split, part, where)
    else:
        choose_part((), split, part, where)
    wanted = by_part[chosen] if chosen else list(files)

    def load() -> Any:
        return _datasets().load_dataset("parquet", data_files=wanted, split="train")

    return _open(load, None, None, where, chosen)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError("Hugging Face data sets need: pip install tokenlabel[data]") from None
    return datasets


def _open(
    load: Callable[[], Any],
    split: str | None,
    part: Part | None,
    where: str,
    chosen: str | None = None,
) -> Listing:
    try:
        data = load()
    except InputError:
        raise
    except Exception as error:  # of datasets, pyarrow, the hub's client: each has its own kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"cannot open data set {where}: {reason}") from error
    if isinstance(data, dict):
        chosen = choose_part(tuple(data), split, part, where)
        data = data[chosen]
    elif chosen is None:
        choose_part((), split, part, where)
    return _source(data, where, chosen)


def _source(table: Any, where: str, part: str | None) -> Listing:
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
    if table._indices is not None:  # rows were chosen or shuffled: the columns below are not
        table = table.flatten_indices()
    found = _classified(table, image, column, where)
    unlabeled = found.labels.count(UNLABELED)
    account = Found(len(found.keys), found.classes, unlabeled, {}, part, found.notes)
    return TableSource(
        found.keys, found.labels, found.class_names, account, table, image, several=found.several
    )


def _classified(table: Any, image: str, column: str, where: str) -> Classified:
    kind = table.features[column]
    several = getattr(kind, "feature", None)  # a list of classes for each image
    names = getattr(kind if several is None else several, "names", None)
    keys = _keys(table, image)
    for key in keys:
        check_key(key, where)
    values = table.data.column(column).to_pylist()
    if several is not None:
        return classify_by_values(keys, [row or [] for row in values], where, names)
    return classify_by_value(keys, values, where, names)


def _is_encoded_image(kind: Any) -> bool:
    """A struct of bytes and path: an image column that lost its name on the way through Parquet."""
    return isinstance(kind, dict) and set(kind) == {"bytes", "path"}


def _label_column(features: dict[str, Any], where: str) -> str:
    classes = [n for n, k in features.items() if type(k).__name__ == "ClassLabel"]
    column = next((name for name in (*classes, *_LABEL_COLUMNS) if name in features), None)
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
