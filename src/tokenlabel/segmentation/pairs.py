"""Images and their masks in folders: which file belongs to which."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from tokenlabel.choices import Orientation
from tokenlabel.data.class_list import read_class_names
from tokenlabel.data.names import ordered
from tokenlabel.data.rules import AS_STORED, DecodeRules
from tokenlabel.data.survey import spread_indices, survey
from tokenlabel.data.walk import is_image, walk
from tokenlabel.errors import InputError, nearest
from tokenlabel.segmentation.classes import ClassList, cityscapes_classes
from tokenlabel.segmentation.recipe import Layout

__all__ = ["Pair", "Pairs", "files_beside", "find_images", "open_pairs", "unlabeled_value"]

_SAME_SPLITS = (("training", "train"), ("validation", "val", "valid"))
_MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
_MASK_ENDINGS = ("_mask", "_label", "_labels", "_seg")
_CITY_IMAGE = "_leftImg8bit.png"
_CITY_MASKS = ("_gtFine_labelTrainIds.png", "_gtFine_labelIds.png")


@dataclass(frozen=True)
class Pair:
    """An image and its mask; `key` names both in messages, predictions and label stores."""

    key: str
    image: Path
    mask: Path  # where it should be, of a scene that has none


@dataclass(frozen=True)
class Pairs:
    """The pairs of one split in the order of their keys, and what their mask values mean."""

    items: tuple[Pair, ...]
    classes: ClassList
    rules: DecodeRules = AS_STORED  # how images become pixels
    unmasked: tuple[Pair, ...] = ()  # scenes without a mask
    passed_over: Mapping[str, int] = field(default_factory=dict)  # reason -> files

    def __len__(self) -> int:
        return len(self.items)

    def line(self) -> str:
        """What is there and what is not used, for a line to print."""
        said = [f"{len(self):,} scenes with masks"]
        if self.unmasked:
            said.append(f"{len(self.unmasked):,} without a mask, such as {self.unmasked[0].key}")
        if self.passed_over:
            counts = sorted(self.passed_over.items(), key=lambda item: (-item[1], item[0]))
            said.append("left out: " + ", ".join(f"{count:,} {reason}" for reason, count in counts))
        return "; ".join(said)

    def fingerprint(self, *more: str) -> str:
        """sha256 (hex) of keys, class names and what else is given: tells data sets of one name
        apart.
        """
        keys = (pair.key for pair in self.items)
        names = "\0".join((*self.classes.names, "", *keys, *(("", *more) if more else ())))
        return hashlib.sha256(names.encode()).hexdigest()


class _Found(NamedTuple):
    """What a layout's folders hold."""

    pairs: list[Pair]
    passed_over: Counter[str]


def open_pairs(
    root: Path,
    split: str,
    *,
    layout: Layout | None = None,
    class_file: Path | None = None,
    ignore_index: int | None = None,
    orientation: Orientation = "ignore",
    in_chans: int = 3,
    channels: tuple[int, ...] | None = None,
) -> Pairs:
    """The images of a split with their masks.

    - "ade20k": `images/<split>/*.jpg`, `annotations/<split>/*.png`; mask value 0 is unlabeled.
    - "cityscapes": `leftImg8bit/<split>/<city>/`, `gtFine/<split>/<city>/` with masks of train ids
      or, where there are none, of full ids.
    - "folder": images and masks side by side in `<split>/` (or in `root` itself, without splits):
      `a.jpg` and `a.png`, or `a.png` and `a_mask.png`; mask value 255 is unlabeled.

    None finds the layout by these folders. "training" and "validation" also stand for their usual
    short names. `class_file` defaults to the class list lying in `root`; `ignore_index` to the
    layout's. `orientation` says whether EXIF orientations are applied, to images and masks alike; the
    range of the values of deep images is found among some of them. `in_chans` channels of the images
    are read, those numbered `channels`. Scenes without a mask are kept
    apart, masks without a scene counted. Raises InputError naming what is missing.
    """
    if not root.is_dir():
        raise InputError(f"no data set at {root}: it is not a folder")
    layout = layout or _detect(root)
    found = _FINDERS[layout](root, split)
    if not found.pairs:
        raise InputError(f"no images in {root} for the split {split!r} (layout {layout!r})")
    masked = [pair for pair in found.pairs if pair.mask.is_file()]
    if not masked:
        image, mask = (p.relative_to(root) for p in (found.pairs[0].image, found.pairs[0].mask))
        raise InputError(
            f"none of {len(found.pairs)} images in {root} for the split {split!r} has a mask: that of"
            f" {image} should be {mask}"
        )
    looked_into = [found.pairs[i] for i in spread_indices(len(found.pairs))]
    seen = survey((pair.key, pair.image.read_bytes) for pair in looked_into)
    with_mask = set(masked)
    return Pairs(
        tuple(masked),
        _classes(root, layout, masked[0], class_file, ignore_index),
        replace(seen.rules(orientation), channels=in_chans, chosen=channels),
        tuple(pair for pair in found.pairs if pair not in with_mask),
        dict(sorted(found.passed_over.items())),
    )


def unlabeled_value(layout: Layout) -> int:
    """The mask value of pixels without a class, where nothing else is said."""
    return 0 if layout == "ade20k" else 255


def find_images(place: Path) -> list[Path]:
    """One image, or all images of a folder and its subfolders, in natural order."""
    if place.is_file():
        return [place]
    found = _images(place, Counter()) if place.is_dir() else []
    if not found:
        raise InputError(f"no images at {place}: give an image or a folder of images")
    return found


def _detect(root: Path) -> Layout:
    if (root / "images").is_dir() and (root / "annotations").is_dir():
        return "ade20k"
    if (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir():
        return "cityscapes"
    return "folder"


def _classes(
    root: Path,
    layout: Layout,
    first: Pair,
    class_file: Path | None,
    ignore_index: int | None,
) -> ClassList:
    if layout == "cityscapes" and class_file is None and ignore_index is None:
        return cityscapes_classes(train_ids=first.mask.name.endswith(_CITY_MASKS[0]))
    names = read_class_names(class_file or root)
    return ClassList.counted(
        names, unlabeled_value(layout) if ignore_index is None else ignore_index
    )


# -- layouts ---------------------------------------------------------------------------------------


def _ade20k(root: Path, split: str) -> _Found:
    base = _split_folder(root / "images", split)
    masks = root / "annotations" / base.relative_to(root / "images")
    passed_over: Counter[str] = Counter()
    by_stem = _by_stem(masks)
    images = {
        image: image.relative_to(base).with_suffix("") for image in _images(base, passed_over)
    }
    pairs = [
        Pair(_key(image, base), image, by_stem.get(stem, masks / f"{stem}{_MASK_SUFFIXES[0]}"))
        for image, stem in images.items()
    ]
    return _Found(pairs, passed_over + _lonely(len(by_stem.keys() - images.values())))


def _by_stem(masks: Path) -> dict[Path, Path]:
    """The masks below a folder by their path without suffix; of several, the first kind."""
    files = _images(masks, Counter()) if masks.is_dir() else []
    found: dict[Path, Path] = {}
    for suffix in reversed(_MASK_SUFFIXES):
        for mask in files:
            if mask.suffix.lower() == suffix:
                found[mask.relative_to(masks).with_suffix("")] = mask
    return found


def _lonely(masks: int) -> Counter[str]:
    return Counter({"masks without an image": masks} if masks else {})


def _cityscapes(root: Path, split: str) -> _Found:
    base = _split_folder(root / "leftImg8bit", split)
    fine = root / "gtFine" / base.relative_to(root / "leftImg8bit")
    passed_over: Counter[str] = Counter()
    images = [p for p in _images(base, passed_over) if p.name.endswith(_CITY_IMAGE)]
    masks = set(_images(fine, Counter()) if fine.is_dir() else [])
    ending = _city_masks(masks)
    pairs = [
        Pair(
            _key(image, base),
            image,
            fine / image.relative_to(base).parent / image.name.replace(_CITY_IMAGE, ending),
        )
        for image in images
    ]
    lonely = {mask for mask in masks if mask.name.endswith(ending)} - {p.mask for p in pairs}
    return _Found(pairs, passed_over + _lonely(len(lonely)))


def _city_masks(masks: Iterable[Path]) -> str:
    names = [mask.name for mask in masks]
    present = (ending for ending in _CITY_MASKS if any(name.endswith(ending) for name in names))
    return next(present, _CITY_MASKS[0])


def _folder(root: Path, split: str) -> _Found:
    base = _split_folder(root, split)
    passed_over: Counter[str] = Counter()
    beside = files_beside(_images(base, passed_over))
    masks = {mask for files in beside.values() for mask in files}
    pairs = [
        Pair(
            _key(image, base),
            image,
            files[0] if files else image.with_name(f"{image.stem}{_MASK_ENDINGS[0]}.png"),
        )
        for image, files in beside.items()
        if image not in masks
    ]
    scenes = [pair for pair in pairs if not _named_as_mask(pair)]
    return _Found(scenes, passed_over + _lonely(len(pairs) - len(scenes)))


def files_beside(images: Iterable[Path]) -> dict[Path, list[Path]]:
    """Image -> the files that have the names of its masks in the layout "folder", as they come."""
    by_stem: dict[Path, list[Path]] = {}
    for path in images:
        by_stem.setdefault(path.with_suffix(""), []).append(path)
    beside = {}
    for stem, same in by_stem.items():
        image = next((p for p in same if p.suffix.lower() not in _MASK_SUFFIXES), same[0])
        named = (m for e in _MASK_ENDINGS for m in by_stem.get(stem.with_name(stem.name + e), []))
        beside[image] = [*(p for p in same if p != image), *named]
    return beside


def _named_as_mask(pair: Pair) -> bool:
    """Whether what seems to be an image has the name of a mask, and no mask of its own."""
    return pair.image.stem.endswith(_MASK_ENDINGS) and not pair.mask.is_file()


_FINDERS: dict[Layout, Callable[[Path, str], _Found]] = {
    "ade20k": _ade20k,
    "cityscapes": _cityscapes,
    "folder": _folder,
}


def _split_folder(base: Path, split: str) -> Path:
    """The folder of a split by its name or short name; `base` itself where it holds the images."""
    folders = sorted(path.name for path in base.iterdir() if path.is_dir())
    names: tuple[str, ...] = (split,)
    for usual in _SAME_SPLITS:
        if split in usual:
            names = (split, *usual)
    for name in names:
        if name in folders:
            return base / name
    if not any(is_image(path.name) for path in base.iterdir()):
        held = ", ".join(folders[:8]) or "nothing"
        raise InputError(f"no split {split!r} in {base}{nearest(split, folders)}: it holds {held}")
    return base


def _images(base: Path, passed_over: Counter[str]) -> list[Path]:
    """The visible image files of a folder and its subfolders, in the one order of names."""
    return [base / path for path in ordered(walk(base, passed_over))]


def _key(image: Path, base: Path) -> str:
    return image.relative_to(base).as_posix()
