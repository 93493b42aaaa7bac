"""Images and their masks in folders: which file belongs to which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenlabel.data.decode import AS_STORED, DecodeRules, Orientation
from tokenlabel.data.names import ordered
from tokenlabel.data.survey import spread_indices, survey
from tokenlabel.data.walk import is_image, walk
from tokenlabel.errors import InputError, nearest
from tokenlabel.segmentation.classes import ClassList, cityscapes_classes, read_class_names
from tokenlabel.segmentation.recipe import Layout

__all__ = ["Pair", "Pairs", "find_images", "open_pairs"]

_SAME_SPLITS = (("training", "train"), ("validation", "val", "valid"))
_MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
_MASK_ENDINGS = ("_mask", "_label", "_labels", "_seg")
_CITY_IMAGE = "_leftImg8bit.png"
_CITY_MASKS = ("_gtFine_labelTrainIds.png", "_gtFine_labelIds.png")


@dataclass(frozen=True)
class Pair:
    """An image and its mask; `key` names both in messages and predictions."""

    key: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Pairs:
    """The pairs of one split in the order of their keys, and what their mask values mean."""

    items: tuple[Pair, ...]
    classes: ClassList
    rules: DecodeRules = AS_STORED  # how images become pixels

    def __len__(self) -> int:
        return len(self.items)


def open_pairs(
    root: Path,
    split: str,
    *,
    layout: Layout | None = None,
    class_file: Path | None = None,
    ignore_index: int | None = None,
    orientation: Orientation = "ignore",
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
    range of the values of deep images is found among some of them. Raises InputError naming what is
    missing.
    """
    if not root.is_dir():
        raise InputError(f"no data set at {root}: it is no folder")
    layout = layout or _detect(root)
    pairs = _FINDERS[layout](root, split)
    if not pairs:
        raise InputError(f"no images in {root} for the split {split!r} (layout {layout!r})")
    _require_masks(pairs, root)
    looked_into = [pairs[i] for i in spread_indices(len(pairs))]
    found = survey((pair.key, pair.image.read_bytes) for pair in looked_into)
    classes = _classes(root, layout, pairs, class_file, ignore_index)
    return Pairs(tuple(pairs), classes, found.rules(orientation))


def find_images(place: Path) -> list[Path]:
    """One image, or all images of a folder and its subfolders, in natural order."""
    if place.is_file():
        return [place]
    found = _images(place) if place.is_dir() else []
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
    pairs: list[Pair],
    class_file: Path | None,
    ignore_index: int | None,
) -> ClassList:
    if layout == "cityscapes" and class_file is None and ignore_index is None:
        return cityscapes_classes(train_ids=pairs[0].mask.name.endswith(_CITY_MASKS[0]))
    default = 0 if layout == "ade20k" else 255
    names = read_class_names(class_file or root)
    return ClassList.counted(names, default if ignore_index is None else ignore_index)


def _require_masks(pairs: list[Pair], root: Path) -> None:
    lacking = [pair for pair in pairs if not pair.mask.is_file()]
    if lacking:
        image, mask = (path.relative_to(root) for path in (lacking[0].image, lacking[0].mask))
        raise InputError(
            f"{len(lacking)} of {len(pairs)} images in {root} have no mask, the first is {image}:"
            f" its mask should be {mask}; add the masks or move these images away"
        )


# -- layouts ---------------------------------------------------------------------------------------


def _ade20k(root: Path, split: str) -> list[Pair]:
    base = _split_folder(root / "images", split)
    masks = root / "annotations" / base.relative_to(root / "images")
    return [
        Pair(_key(image, base), image, _mask_at(masks / image.relative_to(base)))
        for image in _images(base)
    ]


def _mask_at(place: Path) -> Path:
    """The mask of the image's name with the suffix that is there; `.png` if none is."""
    candidates = [place.with_suffix(suffix) for suffix in _MASK_SUFFIXES]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _cityscapes(root: Path, split: str) -> list[Pair]:
    base = _split_folder(root / "leftImg8bit", split)
    fine = root / "gtFine" / base.relative_to(root / "leftImg8bit")
    images = [path for path in _images(base) if path.name.endswith(_CITY_IMAGE)]
    ending = _city_masks(fine)
    return [
        Pair(
            _key(image, base),
            image,
            fine / image.relative_to(base).parent / image.name.replace(_CITY_IMAGE, ending),
        )
        for image in images
    ]


def _city_masks(folder: Path) -> str:
    present = (ending for ending in _CITY_MASKS if any(folder.rglob(f"*{ending}")))
    return next(present, _CITY_MASKS[0])


def _folder(root: Path, split: str) -> list[Pair]:
    base = _split_folder(root, split)
    files = _images(base)
    by_stem: dict[Path, list[Path]] = {}
    for path in files:
        by_stem.setdefault(path.with_suffix(""), []).append(path)
    pairs, masks = [], set()
    for stem, found in by_stem.items():
        image = next((p for p in found if p.suffix.lower() not in _MASK_SUFFIXES), found[0])
        beside = [p for p in found if p != image]
        beside += [m for e in _MASK_ENDINGS for m in by_stem.get(stem.with_name(stem.name + e), [])]
        masks.update(beside)
        mask = beside[0] if beside else image.with_name(f"{image.stem}{_MASK_ENDINGS[0]}.png")
        pairs.append(Pair(_key(image, base), image, mask))
    return [pair for pair in pairs if pair.image not in masks]


_FINDERS: dict[Layout, Callable[[Path, str], list[Pair]]] = {
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


def _images(base: Path) -> list[Path]:
    """The visible image files of a folder and its subfolders, in the one order of names."""
    return [base / path for path in ordered(walk(base, Counter()))]


def _key(image: Path, base: Path) -> str:
    return image.relative_to(base).as_posix()
