"""Segmentation masks as labels: a folder of PNGs beside the images."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tokenlabel.annotators.areas import map_of_areas
from tokenlabel.annotators.protocol import Pixels
from tokenlabel.data.decode import decode_mask
from tokenlabel.data.orientation import UPRIGHT, turned_like, turned_size
from tokenlabel.data.survey import spread_indices
from tokenlabel.errors import InputError
from tokenlabel.geometry.overlap import interval_shares
from tokenlabel.labels import LabelMap
from tokenlabel.progress import console

__all__ = ["MaskAnnotator"]

Mask = NDArray[np.int64]  # [H, W] class of each pixel, -1 where there is none


class MaskAnnotator:
    """Labels cells with the share of their area that each class of a mask fills.

    The mask of image `<path>.<suffix>` is `<folder>/<path>.png`, or `<folder>/<name>.png`. A pixel of
    value v is of class v - `first_value`; values below that and those in `ignore` are unlabelled.
    """

    def __init__(
        self,
        folder: Path,
        num_classes: int,
        *,
        grid: tuple[int, int] = (32, 32),
        top_k: int = 5,
        first_value: int = 0,
        ignore: Sequence[int] = (255,),
    ) -> None:
        if not folder.is_dir():
            raise InputError(f"no folder of masks at {folder}")
        self.folder, self.num_classes = folder, num_classes
        self.grid, self.top_k = grid, top_k
        self.first_value, self.ignore = first_value, tuple(ignore)
        self._say_what_is_missing()

    @property
    def description(self) -> dict[str, Any]:
        return {
            "kind": "masks",
            "grid": self.grid,
            "top_k": self.top_k,
            "first_value": self.first_value,
            "ignore": self.ignore,
        }

    def batch_size(self) -> int:
        return 32

    def prepare(self, key: str, pixels: Pixels, orientation: int = UPRIGHT) -> Mask:
        path = self._path(key)
        try:
            values = decode_mask(path.read_bytes(), str(path))
        except OSError as error:
            raise InputError(f"cannot read mask {path}: {error.strerror}") from error
        size = (pixels.shape[0], pixels.shape[1])
        values = turned_like(values, turned_size(size, orientation), orientation)
        if values.shape != size:
            raise InputError(
                f"the mask {path} is {list(values.shape)}, its image {list(pixels.shape[:2])}:"
                " masks are single-channel PNGs of the image's size"
            )
        unlabelled = np.isin(values, self.ignore) | (values < self.first_value)
        mask: Mask = np.where(unlabelled, -1, values - self.first_value)
        if mask.max() >= self.num_classes:
            raise InputError(
                f"the mask {path} has value {mask.max() + self.first_value}, beyond the"
                f" {self.num_classes} classes: check the class list, first value and ignored values"
            )
        return mask

    def annotate(self, batch: Sequence[Mask]) -> list[LabelMap]:
        return [self._map(mask) for mask in batch]

    def _map(self, mask: Mask) -> LabelMap:
        classes = [int(c) for c in np.unique(mask) if c >= 0] or [0]
        planes = torch.from_numpy(mask == np.array(classes)[:, None, None]).float()
        by_row, by_col = (
            torch.from_numpy(interval_shares((0, 1), cells, (0, 1), pixels)).float()
            for cells, pixels in zip(self.grid, mask.shape, strict=True)
        )
        areas = by_row @ planes @ by_col.T
        return map_of_areas(areas, classes, self.num_classes, self.top_k)

    def _say_what_is_missing(self) -> None:
        """Masks of 0 and 255, say, name one class of two where 255 is what has no class."""
        files = sorted(self.folder.rglob("*.png"))
        seen: Counter[int] = Counter()
        for file in (files[i] for i in spread_indices(len(files))):
            with contextlib.suppress(InputError, OSError):  # said of the image that it belongs to
                seen.update(np.unique(decode_mask(file.read_bytes(), str(file))).tolist())
        classes = {value - self.first_value for value in seen if value not in self.ignore}
        known = classes & set(range(self.num_classes))
        ignored = sorted(set(seen) & set(self.ignore))
        if ignored and len(known) <= self.num_classes / 2:
            console.print(
                f"note: masks in {self.folder} name {len(known)} of {self.num_classes} classes; they"
                f" also hold the value {ignored[0]}, which is read as no class. If it is one, say which"
                " values are ignored and which value is the first class's",
                soft_wrap=True,
            )

    def _path(self, key: str) -> Path:
        name = PurePosixPath(key).with_suffix(".png")
        full = self.folder / name
        return full if full.exists() else self.folder / name.name
