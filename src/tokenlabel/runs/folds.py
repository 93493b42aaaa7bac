"""`Folds`: what `teach --folds` leaves: one taught model a fold, and which of them saw which image.

folds.json   how many folds, the group that stayed together, the checksum of the other file; written last
folds.bin    for each image the first 8 bytes of its key's sha256, in rising order; then each one's fold
fold-0/ ...  the model that was taught without the images of fold 0, ...
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokenlabel.errors import InputError
from tokenlabel.files import write_atomically
from tokenlabel.text import read_json

__all__ = ["Folds", "holds_folds", "member_folder", "open_folds", "write_folds"]

_FILE, _KEYS = "folds.json", "folds.bin"


@dataclass(frozen=True)
class Folds:
    """The models of a folder, and the fold of each image that they were taught on."""

    folder: Path
    count: int
    sha256: str  # of the file of keys
    _keys: NDArray[np.uint64]  # rising
    _folds: NDArray[np.uint8]

    @property
    def members(self) -> list[Path]:
        """The folders of the models; model i saw every image but those of fold i."""
        return [member_folder(self.folder, number) for number in range(self.count)]

    @property
    def images(self) -> int:
        """How many were taught."""
        return len(self._keys)

    def fold_of(self, key: str) -> int | None:
        """The fold of an image by its key; None for an image that no model saw."""
        wanted = _hashed(key)
        place = int(np.searchsorted(self._keys, wanted))
        if place == len(self._keys) or self._keys[place] != wanted:
            return None
        return int(self._folds[place])


def member_folder(folder: Path, fold: int) -> Path:
    return folder / f"fold-{fold}"


def holds_folds(path: str | Path) -> bool:
    """Whether a folder holds models that were taught in folds, finished or begun."""
    return Path(path, _FILE).is_file() or member_folder(Path(path), 0).is_dir()


def write_folds(
    folder: Path, keys: Sequence[str], folds: Sequence[int], count: int, group: str | None
) -> None:
    """Once all models are taught."""
    hashed = np.array([_hashed(key) for key in keys], np.uint64)
    order = np.argsort(hashed, kind="stable")
    content = hashed[order].astype("<u8").tobytes() + np.array(folds, np.uint8)[order].tobytes()
    write_atomically(folder / _KEYS, content)
    facts = {
        "folds": count,
        "group": group,
        "images": len(keys),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_atomically(folder / _FILE, json.dumps(facts, indent=1) + "\n")


def open_folds(folder: str | Path) -> Folds:
    """Raises InputError where the folds are unfinished or damaged."""
    folder = Path(folder)
    if not (folder / _FILE).is_file():
        raise InputError(f"{folder} is unfinished: run the same `tokenlabel teach` again")
    facts = read_json(folder / _FILE, kind=dict)
    count, images = facts.get("folds"), facts.get("images")
    try:
        content = (folder / _KEYS).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {folder / _KEYS}: {error.strerror}") from error
    whole = hashlib.sha256(content).hexdigest() == facts.get("sha256")
    if (
        not whole
        or not isinstance(count, int)
        or not isinstance(images, int)
        or not 2 <= count <= 255
        or len(content) != 9 * images
    ):
        raise InputError(f"{folder / _FILE} or {_KEYS} beside it is damaged: teach the folds again")
    keys = np.frombuffer(content, "<u8", images).astype(np.uint64)
    folds = np.frombuffer(content, np.uint8, images, 8 * images)
    return Folds(folder, count, str(facts["sha256"]), keys, folds)


def _hashed(key: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
