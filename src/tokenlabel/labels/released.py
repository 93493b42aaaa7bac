"""The released label layout: one `.pt` file an image, `<class>/<stem>.pt`, float16 [2, K, H, W].

Plane 0 holds scores (logits), plane 1 class ids. Float16 holds whole numbers exactly up to 2048 only,
so ids of larger label spaces cannot be written, and are refused when read.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from tokenlabel.errors import InputError
from tokenlabel.files import claim_folder, inside, replacing, sync, write_torch
from tokenlabel.geometry import Box
from tokenlabel.labels.codec import Codec
from tokenlabel.labels.label_map import LabelMap
from tokenlabel.labels.store import LabelStore
from tokenlabel.labels.writer import LabelStoreWriter
from tokenlabel.progress import progress_bar

__all__ = ["ExtentRule", "Imported", "export_released", "import_released", "read_released"]

ExtentRule = Literal["center-crop", "whole"]

_LARGEST_EXACT_ID = 2048
_MOST_BYTES = 1 << 26  # of one label file; the published ones have 8192
_MOST_CELLS = 4096  # along a side
_AHEAD = 256  # label files that are read before their turn
_LEAST_REST = 1e-6  # probability outside the K classes, to keep logits finite

Sample = tuple[str, tuple[int, int]]  # key, (height, width) of the image
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Imported:
    """How a tree and a data set fit each other."""

    matched: int
    by_stem: int  # of them, those found by their file's stem alone, whatever the folder
    missing: list[str]  # keys of images without a usable label file, and why
    extra: int  # label files of no image


def read_released(path: Path, extent: Box, num_classes: int) -> LabelMap:
    """One label file. Raises InputError if it is damaged, of another layout, or holds code."""
    try:
        if not path.is_file():
            raise InputError(f"{path} is refused: it is not a regular file")
        size = _unpacked_size(path)
        if size > _MOST_BYTES:
            raise InputError(f"{path} is refused: a label file of {size} bytes")
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} is refused: it holds more than tensors") from error
    except Exception as error:  # a damaged file makes its readers raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path} cannot be read: {reason}") from error
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 4 or tensor.shape[0] != 2:
        found = list(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise InputError(f"{path} is not a label file: it needs a tensor [2, K, H, W], not {found}")
    if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
        raise InputError(f"{path} is not a label file: its tensor is sparse, complex or quantized")
    if (
        min(tensor.shape) < 1
        or tensor.shape[1] > num_classes
        or max(tensor.shape[2:]) > _MOST_CELLS
        or tensor.numel() * tensor.element_size()
        > _MOST_BYTES  # repeated values need no bytes in the file
    ):
        raise InputError(
            f"{path} is not a label file: [2, K, H, W] = {list(tensor.shape)} does not fit"
            f" {num_classes} classes and {_MOST_CELLS} cells a side"
        )
    scores, ids = tensor.float()
    classes = ids.long()
    if not (scores.isfinite().all() and (classes == ids).all()):
        raise InputError(f"{path} is damaged: scores are not finite or ids are not whole numbers")
    count = min(num_classes, _LARGEST_EXACT_ID + 1)
    if classes.min() < 0 or classes.max() >= count:
        wrong = int(classes[(classes < 0) | (classes >= count)][0])
        why = (
            f"is none of {num_classes}"
            if not 0 <= wrong < num_classes
            else f"may be another: float16 holds ids up to {_LARGEST_EXACT_ID} exactly"
        )
        raise InputError(f"{path} names class {wrong}, which {why}")
    return LabelMap(scores, classes, None, extent, num_classes)


def _unpacked_size(path: Path) -> int:
    """Bytes of a file, or of what it unpacks to: a small archive can hold gigabytes of zeros."""
    if not zipfile.is_zipfile(path):
        return path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        return sum(member.file_size for member in archive.infolist())


def import_released(
    tree: Path,
    output: Path,
    samples: Sequence[str],
    image_size: Callable[[int], tuple[int, int]],
    *,
    num_classes: int,
    class_names: tuple[str, ...] | None = None,
    dataset: dict[str, object] | None = None,
    extent: ExtentRule = "center-crop",
    codec: Codec = "exact",
    threads: int = 8,
    overwrite: bool = False,
) -> Imported:
    """Bring a released tree into a store, under the keys `samples` of a data set.

    An image `<class>/<stem>.<suffix>` has its labels in `<tree>/<class>/<stem>.pt`. An image whose
    folder is none of the tree's (a flat archive has none at all) takes the file of its stem, where
    one file and one image have that stem. The released
    labels cover the center square of each image (they were made by a center crop of the shorter
    side), which is where `center-crop` places them, from the image's size (height, width) that
    `image_size(i)` tells; `whole` is for trees made on whole images. Samples whose file is missing or
    damaged are left out and listed in the manifest. Raises InputError where no image has a file.
    """
    if extent not in get_args(ExtentRule):
        raise InputError(f"unknown extent {extent!r}: use center-crop or whole")
    if not tree.is_dir():
        raise InputError(f"no label tree at {tree}")
    files = {path.relative_to(tree).as_posix() for path in tree.rglob("*.pt")}
    if not files:
        raise InputError(f"{tree} holds no .pt files")

    names = _files_of(samples, files)
    if not any(names):
        raise InputError(
            f"{tree} has no labels of these {len(samples)} images: {samples[0]!r} looks for"
            f" {_label_file(samples[0])!r}, the tree has {min(files)!r}"
        )

    def read(number: int) -> LabelMap | InputError:
        name = names[number]
        if name is None:
            return InputError(f"{_label_file(samples[number])} is not in the tree")
        try:
            box = Box.center_square(image_size(number)) if extent == "center-crop" else Box()
            return read_released(tree / name, box, num_classes)
        except InputError as error:
            return error

    missing = []
    with (
        LabelStoreWriter(
            output,
            num_classes=num_classes,
            class_names=class_names,
            codec=codec,
            dataset=dict(dataset or {}),
            annotator={"kind": "released labels", "extent": extent},
            overwrite=overwrite,
        ) as writer,
        ThreadPoolExecutor(threads) as pool,
        progress_bar() as progress,
    ):
        found = _in_order(pool, read, range(len(samples)))
        task = progress.add_task("import", total=len(samples), note="")
        for key, label in zip(samples, progress.track(found, task_id=task), strict=True):
            fault = str(label)
            if isinstance(label, LabelMap):
                try:
                    writer.add(key, label)
                    continue
                except InputError:
                    raise
                except ValueError as error:  # such as scores that the codec cannot hold
                    fault = str(error)
            writer.leave_out(key, fault)
            missing.append(f"{key}: {fault}")
    return Imported(
        matched=len(samples) - len(missing),
        by_stem=sum(
            name not in (None, _label_file(key)) for key, name in zip(samples, names, strict=True)
        ),
        missing=missing,
        extra=len(files - set(names)),
    )


def _files_of(samples: Sequence[str], files: set[str]) -> list[str | None]:
    """The label file of each key, or None: by folder and stem, else by a stem that is unique."""
    folders = {PurePosixPath(file).parent.name for file in files}
    stems = Counter(PurePosixPath(file).stem for file in files)
    of_stem = {PurePosixPath(file).stem: file for file in files}
    asked = Counter(PurePosixPath(key).stem for key in samples)

    def find(key: str) -> str | None:
        name, path = _label_file(key), PurePosixPath(key)
        if name in files:
            return name
        unique = stems[path.stem] == 1 and asked[path.stem] == 1
        return of_stem[path.stem] if unique and path.parent.name not in folders - {""} else None

    return [find(key) for key in samples]


def export_released(store: LabelStore, output: Path, *, overwrite: bool = False) -> int:
    """Write a store in the released layout, for other projects; returns the number of files.

    Its readers take every class outside the K for one of logit zero. Where the probabilities are
    known, scores are written as logits above those zeros, which gives the same probabilities again.
    The layout has no place for the extent: say in your read-me which part of the image the maps
    cover. Raises InputError where class ids do not fit float16, where two keys would share a file,
    and where `output` holds something else than label files, unless `overwrite` is set.
    """
    if store.num_classes > _LARGEST_EXACT_ID + 1:
        raise InputError(
            f"the released layout holds ids up to {_LARGEST_EXACT_ID} exactly,"
            f" this store has {store.num_classes} classes"
        )
    files: dict[str, str] = {}
    for key in store:
        inside(output, key)
        other = files.setdefault(_label_file(key), key)
        if other != key:
            raise InputError(
                f"{other!r} and {key!r} would share the file {_label_file(key)}: the released layout"
                " keeps one folder and the stem of a name only"
            )
    claim_folder(output, overwrite=overwrite, ours=_is_tree)
    with progress_bar() as progress:
        task = progress.add_task("export", total=len(files), note="")
        for name, key in progress.track(files.items(), task_id=task):
            label = store[key]
            path = inside(output, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, synced=False) as aside:
                scores = _released_scores(label)
                write_torch(aside, torch.stack([scores, label.classes.float()]).half())
    sync(output)
    return len(files)


def _is_tree(folder: Path) -> bool:
    """Whether a folder holds label files and nothing else."""
    return all(
        path.suffix == ".pt" or path.name.startswith(".") or path.is_dir()
        for path in folder.rglob("*")
    )


def _released_scores(label: LabelMap) -> Tensor:
    """Logits [K, H, W] whose softmax, with a zero for every other class, has the map's probabilities."""
    if label.log_normalizer is None:
        return label.scores
    log_probability = label.scores - label.log_normalizer
    others = max(label.num_classes - label.k, 1)
    rest = (1 - log_probability.exp().sum(0)).clamp(min=_LEAST_REST) / others
    return log_probability - rest.log()


def _label_file(key: str) -> str:
    """`<class>/<stem>.pt` of an image's key, whatever folders stand above its class."""
    path = PurePosixPath(key)
    return f"{path.parent.name}/{path.stem}.pt" if path.parent.name else f"{path.stem}.pt"


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T]
) -> Iterator[R]:
    """`pool.map` that keeps only some results waiting."""
    rest = iter(items)
    waiting = [pool.submit(function, item) for item in islice(rest, _AHEAD)]
    while waiting:
        yield waiting.pop(0).result()
        waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
