"""What is wrong with a data set, before anything is trained on it: every image is decoded."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations, islice
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenlabel.data.decode import decode_picture
from tokenlabel.data.reading import StorageError
from tokenlabel.data.source import UNLABELED, ImageSource, classes_of
from tokenlabel.data.survey import is_constant
from tokenlabel.errors import InputError
from tokenlabel.progress import progress_bar
from tokenlabel.text import first_of

__all__ = ["Checked", "check_images"]

_FEWEST = 2  # images of a class: of one alone nothing can be held out
_FEW = 0.05  # of the usual class's images
_PICTURES = {
    ".arw", ".avif", ".cr2", ".cr3", ".dng", ".eps", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".orf",
    ".psd", ".raw", ".svg", ".tif", ".webp",
}  # fmt: skip
_SHOWN = 4
_AT_LEAST = (64, 64)  # pixels of the reduced scale at which large JPEGs are decoded
_GRID = 16  # rows and columns of brightness differences that tell whether two images look alike
_TELLING = 32  # of these 256 that must rise, and fall: a smooth image is like many others
_ALIKE = 20  # of these 256 in which an image that was saved anew may differ
_MOST_PAIRS = 2_000_000_000  # of two parts' images that are compared by their looks
_AHEAD = 4096  # images at a time: what waits is held in memory


@dataclass(frozen=True)
class Checked:
    """What was found in a data set's parts."""

    problems: tuple[str, ...]
    """One line each."""
    images: int
    per_second: float
    """Images read and decoded a second, by all processors together."""


class _Seen(NamedTuple):
    """One image."""

    digest: bytes  # of the file
    look: NDArray[np.uint64] | None  # [4], of the brightness; None where it tells too little
    constant: bool
    fault: str | None


def check_images(parts: Mapping[str, ImageSource]) -> Checked:
    """Decode every image of a data set's parts ("train", "validation") and name what is wrong.

    Raises StorageError where the storage fails: that says nothing of an image.
    """
    problems: list[str] = []
    for name, source in parts.items():
        prefix = f"{name}: " if len(parts) > 1 else ""
        problems += [prefix + line for line in _of_account(source)]
    seen: dict[str, list[_Seen]] = {}
    start, total = time.perf_counter(), sum(map(len, parts.values()))
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar() as bar:
        task = bar.add_task("decoding every image", total=total, note="")
        for name, source in parts.items():
            seen[name], numbers = [], iter(range(len(source)))
            while chunk := list(islice(numbers, _AHEAD)):
                for found in pool.map(partial(_look, source), chunk):
                    seen[name].append(found)
                    bar.advance(task)
    seconds = time.perf_counter() - start
    for name, source in parts.items():
        prefix = f"{name}: " if len(parts) > 1 else ""
        problems += [prefix + line for line in _of_pixels(source, seen[name])]
    problems += _copies(parts, seen)
    return Checked(tuple(problems), total, total / max(seconds, 1e-9))


def _look(source: ImageSource, index: int) -> _Seen:
    key = source.keys[index]
    try:
        data = source.read(index)
        pixels = decode_picture(data, key, source.rules, fast=True, at_least=_AT_LEAST)
    except StorageError:
        raise
    except InputError as error:
        return _Seen(b"", None, False, str(error))
    return _Seen(hashlib.sha256(data).digest()[:16], _brightness(pixels), is_constant(pixels), None)


def _brightness(pixels: NDArray[np.uint8]) -> NDArray[np.uint64] | None:
    """Where the picture becomes brighter from left to right: 256 bits, or None where it is too plain."""
    small = Image.fromarray(pixels).convert("L").resize((_GRID + 1, _GRID), Image.Resampling.BOX)
    values = np.asarray(small, np.int16)
    rises = values[:, 1:] > values[:, :-1]
    falls = values[:, 1:] < values[:, :-1]
    if min(rises.sum(), falls.sum()) < _TELLING:
        return None
    return np.packbits(rises).view(np.uint64)


def _of_account(source: ImageSource) -> Iterator[str]:
    """What names, classes and files left out tell."""
    counts = Counter(label for i in range(len(source)) for label in classes_of(source, i))
    usual = median(counts.values()) if counts else 0
    alone = [n for i, n in enumerate(source.class_names) if counts[i] < _FEWEST]
    if alone:
        yield f"{len(alone)} classes have fewer than {_FEWEST} images: {first_of(alone, _SHOWN)}"
    few = [
        f"{name} ({counts[i]})"
        for i, name in enumerate(source.class_names)
        if _FEWEST <= counts[i] < _FEW * usual
    ]
    if few:
        yield f"{len(few)} classes have few images where others have {usual:g}: {first_of(few, _SHOWN)}"
    if unlabeled := list(source.labels).count(UNLABELED):
        yield f"{unlabeled:,} of {len(source):,} images have no class: training leaves them out"
    for reason, count in source.found.left_out.items():
        ending = reason.rpartition(" ")[2]
        if ending in _PICTURES:
            yield f"{count:,} pictures are not read: Pillow decodes no {ending} here; convert them"


def _of_pixels(source: ImageSource, seen: list[_Seen]) -> Iterator[str]:
    total = f"of {len(seen):,} images"
    faults = [source.keys[i] for i, image in enumerate(seen) if image.fault is not None]
    if faults:
        # all of them, for nothing else says which
        yield f"{len(faults):,} {total} cannot be read: {', '.join(faults)}; repair or remove them"
    constant = [source.keys[i] for i, image in enumerate(seen) if image.constant]
    if constant:
        yield f"{len(constant):,} {total} hold one value only: {first_of(constant, _SHOWN)}"


def _copies(parts: Mapping[str, ImageSource], seen: Mapping[str, list[_Seen]]) -> Iterator[str]:
    """Images whose files are equal, in two parts, in two classes, in one; and those that look alike."""
    first: dict[bytes, tuple[str, int]] = {}
    pairs: dict[str, list[str]] = {}
    new: dict[str, list[int]] = {part: [] for part in parts}
    for part, source in parts.items():
        for index, image in enumerate(seen[part]):
            if image.fault is not None or image.constant:
                continue
            part_of, other = first.setdefault(image.digest, (part, index))
            if (part_of, other) == (part, index):
                new[part].append(index)
                continue
            same = _titles(parts[part_of], other) == _titles(source, index)
            kind = "parts" if part_of != part else "class" if same else "classes"
            pairs.setdefault(kind, []).append(
                f"{source.keys[index]} and {parts[part_of].keys[other]}"
            )
    for before, after in combinations(parts, 2):
        pairs.setdefault("alike", []).extend(
            f"{parts[after].keys[b]} and {parts[before].keys[a]}"
            for a, b in _alike(seen[before], new[before], seen[after], new[after])
        )
    said = {
        "parts": "images are also in another part, where they judge what was learned from them:"
        " remove them from one",
        "alike": "images look like one in another part: is it the same scene",
        "classes": "images are in two classes: keep the right one",
        "class": "images come twice in their class: remove the copies",
    }
    for kind, line in said.items():
        if pairs.get(kind):
            yield f"{len(pairs[kind]):,} {line} ({first_of(pairs[kind], 1)})"


def _alike(
    ones: list[_Seen], these: list[int], others: list[_Seen], those: list[int]
) -> Iterator[tuple[int, int]]:
    """For each of `those` images that looks like one of `these`: both."""
    known = [(index, look) for index in these if (look := ones[index].look) is not None]
    if not known or len(known) * len(those) > _MOST_PAIRS:
        return
    looks = np.stack([look for _, look in known])
    for index in those:
        look = others[index].look
        if look is None:
            continue
        differing = np.bitwise_count(looks ^ look).sum(1)
        nearest = int(differing.argmin())
        if differing[nearest] <= _ALIKE:
            yield known[nearest][0], index


def _titles(source: ImageSource, index: int) -> set[str]:
    return {source.class_names[label] for label in classes_of(source, index)}
