"""What is wrong with a data set, before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

from tokenlabel.data.source import UNLABELED, ImageSource
from tokenlabel.data.survey import spread_indices, survey

__all__ = ["find_problems"]

_SAMPLE = 256  # images that are decoded, spread evenly over the data
_FEWEST = 2  # images of a class: of one alone nothing can be held out
_PICTURES = {
    ".arw", ".avif", ".cr2", ".cr3", ".dng", ".eps", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".orf",
    ".psd", ".raw", ".svg", ".tif", ".webp",
}  # fmt: skip
_SHOWN = 4


def find_problems(source: ImageSource, sample: int = _SAMPLE) -> Iterator[str]:
    """One line for each kind of problem; `sample` images are decoded to find those in the pixels."""
    labels = Counter(int(label) for label in source.labels)
    small = [n for i, n in enumerate(source.class_names) if labels[i] < _FEWEST]
    if small:
        yield f"{len(small)} classes have fewer than {_FEWEST} images: {_some(small)}"
    if labels[UNLABELED]:
        missing = f"{labels[UNLABELED]:,} of {len(source):,}"
        yield f"{missing} images have no class: training leaves them out"
    for reason, count in source.found.left_out.items():
        ending = reason.rpartition(" ")[2]
        if ending in _PICTURES:
            yield f"{count:,} pictures are not read: Pillow decodes no {ending} here; convert them"
    chosen = spread_indices(len(source), sample)
    seen = survey(((source.keys[i], partial(source.read, i)) for i in chosen), constants=True)
    looked = f"of {len(chosen)} images looked into"
    if seen.unreadable:
        first = next(source.keys[i] for i in chosen if _is_unreadable(source, i))
        yield f"{seen.unreadable} {looked} cannot be read, {first} for one: repair or remove them"
    if seen.constant:
        yield f"{len(seen.constant)} {looked} hold one value only: {_some(seen.constant)}"


def _is_unreadable(source: ImageSource, index: int) -> bool:
    image = (source.keys[index], partial(source.read, index))
    return bool(survey([image], constants=True).unreadable)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
