"""Images in folders: one folder a class, in a part of the data set or without parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tokenlabel.data.classes import classify_by_folder
from tokenlabel.data.names import check_key, ordered
from tokenlabel.data.ranges import files_version
from tokenlabel.data.reading import read_patiently
from tokenlabel.data.source import Found, Listing
from tokenlabel.data.splits import Part, choose_part, holds_parts, named_like_a_part, parts_among
from tokenlabel.data.walk import entries_of, is_image, is_visible, walk
from tokenlabel.text import first_of

__all__ = ["FolderSource", "holds_images", "open_folder"]

_SHOWN = 3  # folders in a note
_DEEPEST = 8  # folders around the parts; links may lead in circles


@dataclass(frozen=True)
class FolderSource(Listing):
    """Images that are files in or below a folder; their keys are paths relative to it."""

    root: Path

    def version(self) -> str:
        return files_version(str(self.root / key) for key in self.keys)

    def read(self, index: int) -> bytes:
        path = self.root / self.keys[index]
        return read_patiently(path.read_bytes, f"image {path}")


def open_folder(root: Path, split: str | None, part: Part | None) -> Listing:
    """The images below `root` or its part, classed by the folder that holds them."""
    root = _unwrapped(root)
    folders = _visible_folders(root)
    parts = parts_among(_top_folders(root, folders))
    chosen = choose_part(parts, split, part, str(root), folders)
    base = root / chosen if chosen else root
    left_out: Counter[str] = Counter()
    entered: list[str] = []
    found = classify_by_folder(list(walk(base, left_out, entered)), str(base))
    notes = (*(_without_images(entered, found.keys) if found.classes else ()), *found.notes)
    account = Found(len(found.keys), found.classes, 0, dict(left_out), chosen, notes)
    return FolderSource(found.keys, found.labels, found.class_names, account, base)


def _without_images(folders: list[str], keys: Sequence[str]) -> tuple[str, ...]:
    """A note of the folders that hold no image and so are no classes; of nested ones the outermost."""
    holding = {""}
    for folder in {key.rpartition("/")[0] for key in keys}:
        while folder not in holding:
            holding.add(folder)
            folder = folder.rpartition("/")[0]
    empty = ordered(
        name for name in folders if name not in holding and name.rpartition("/")[0] in holding
    )
    if not empty:
        return ()
    several = "" if len(empty) == 1 else "s"
    return (f"{len(empty):,} folder{several} without images left out: {first_of(empty, _SHOWN)}",)


def holds_images(folder: Path) -> bool:
    """Whether an image lies in a folder or below it."""
    return any(True for _ in walk(folder, Counter()))


def _unwrapped(root: Path) -> Path:
    """As `splits.wrapper_of`: the one folder in `root` that holds the parts; else `root`."""
    inner = _only_folder(root)
    for _ in range(_DEEPEST):
        if inner is None:
            break
        if holds_parts(_top_folders(inner, _visible_folders(inner))):
            return inner
        inner = _only_folder(inner)
    return root


def _only_folder(folder: Path) -> Path | None:
    """The one folder that holds all images of a folder, unless it is named like a part."""
    held = (name for name in _visible_folders(folder) if holds_images(folder / name))
    names = list(islice(held, 2))
    if len(names) != 1 or named_like_a_part(names[0]):
        return None
    entries = entries_of(folder)
    beside = any(is_visible(e.name) and is_image(e.name) and e.is_file() for e in entries)
    return None if beside else folder / names[0]


def _visible_folders(root: Path) -> list[str]:
    names = []
    for entry in entries_of(root):
        if is_visible(entry.name) and entry.is_dir():
            check_key(entry.name, str(root))
            names.append(entry.name)
    return names


def _top_folders(root: Path, folders: list[str]) -> dict[str, frozenset[str]]:
    """As `splits.top_folders`, without a walk through all of the data: {} where it has no parts."""
    if not any(named_like_a_part(name) for name in folders):
        return {}
    tops = {}
    for name in folders:
        inside = set()
        for entry in entries_of(root / name):
            if is_visible(entry.name) and entry.is_dir():
                inside.add(entry.name)
            elif is_visible(entry.name) and is_image(entry.name):
                inside.clear()  # flat: images lie in it directly
                tops[name] = frozenset[str]()
                break
        else:
            if any(holds_images(root / name / folder) for folder in inside):
                tops[name] = frozenset(inside)
    return tops
