"""Segmentation masks as labels: a folder of PNGs beside the images."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from tokenlabel.annotators.spec import Cells, File
from tokenlabel.errors import InputError
from tokenlabel.options import STRICT, Count

if TYPE_CHECKING:
    import torch

    from tokenlabel.annotators.protocol import Pixels
    from tokenlabel.labels import LabelMap

__all__ = ["MaskAnnotator", "MasksSpec"]

Mask = NDArray[np.int64]  # [H, W] class of each pixel, -1 where there is none


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MasksSpec:
    """Label images from segmentation masks: the classes of a cell are weighted by area."""

    kind: ClassVar[str] = "masks"

    folder: File
    """Folder of the masks: single-channel PNGs with the sizes and names of the images."""
    grid: Cells = (32, 32)
    """Rows and columns of cells."""
    top_k: Count = 5
    """Classes kept per cell."""
    classes: File | None = None
    """File with the class names of the masks, as in `tokenlabel segment train`, if they are not the
    classes of the images (for example, if there are no class folders)."""
    first_value: int = 0
    """Pixel value of the first class (1 in ADE20K's convention)."""
    ignored_values: tuple[int, ...] = (255,)
    """Pixel values that mean "unlabeled"."""

    def build(
        self,
        class_names: Sequence[str],
        device: torch.device | None = None,  # noqa: ARG002 (networks use it)
    ) -> MaskAnnotator:
        if self.classes is not None:
            from tokenlabel.data.class_list import read_class_names

            class_names = read_class_names(self.classes)
        return MaskAnnotator(self, class_names)


class MaskAnnotator:
    """Labels cells with the share of their area that each class of a mask fills.

    The mask of image `<path>.<suffix>` is `<folder>/<path>.png`, or `<folder>/<name>.png`. A pixel of
    value v is of class v - `first_value`; values below that and the ignored ones are unlabeled.
    """

    def __init__(self, spec: MasksSpec, class_names: Sequence[str]) -> None:
        if not spec.folder.is_dir():
            raise InputError(f"no folder of masks at {spec.folder}")
        self.spec = spec
        self.class_names = tuple(class_names)
        self.num_classes = len(class_names)
        self.notes = self._what_is_missing()

    @property
    def description(self) -> dict[str, Any]:
        return {
            "kind": "masks",
            "grid": list(self.spec.grid),
            "top_k": self.spec.top_k,
            "first_value": self.spec.first_value,
            "ignore": list(self.spec.ignored_values),
        }

    def batch_size(self) -> int:
        return 32

    def check_names(self, keys: Sequence[str]) -> None:
        from tokenlabel.annotators.areas import require_one_each

        require_one_each(keys, self._path, "the mask")

    def prepare(self, key: str, pixels: Pixels, orientation: int = 1) -> Mask:
        from tokenlabel.data.decode import decode_mask
        from tokenlabel.data.orientation import turned_like, turned_size

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
        unlabeled = np.isin(values, self.spec.ignored_values) | (values < self.spec.first_value)
        mask: Mask = np.where(unlabeled, -1, values - self.spec.first_value)
        if mask.max() >= self.num_classes:
            raise InputError(
                f"the mask {path} has value {mask.max() + self.spec.first_value}, beyond the"
                f" {self.num_classes} classes: check the class list, first value and ignored values"
            )
        return mask

    def annotate(self, batch: Sequence[Mask]) -> list[LabelMap]:
        return [self._map(mask) for mask in batch]

    def _map(self, mask: Mask) -> LabelMap:
        import torch

        from tokenlabel.annotators.areas import map_of_areas
        from tokenlabel.geometry.overlap import interval_shares

        classes = [int(c) for c in np.unique(mask) if c >= 0] or [0]
        planes = torch.from_numpy(mask == np.array(classes)[:, None, None]).float()
        by_row, by_col = (
            torch.from_numpy(interval_shares((0, 1), cells, (0, 1), pixels)).float()
            for cells, pixels in zip(self.spec.grid, mask.shape, strict=True)
        )
        areas = by_row @ planes @ by_col.T
        return map_of_areas(areas, classes, self.num_classes, self.spec.top_k)

    def _what_is_missing(self) -> tuple[str, ...]:
        """Masks of 0 and 255, say, name one class of two where 255 is what has no class."""
        from tokenlabel.data.decode import decode_mask
        from tokenlabel.data.survey import spread_indices

        files = sorted(self.spec.folder.rglob("*.png"))
        seen: Counter[int] = Counter()
        for file in (files[i] for i in spread_indices(len(files))):
            with contextlib.suppress(InputError, OSError):  # said of the image that it belongs to
                seen.update(np.unique(decode_mask(file.read_bytes(), str(file))).tolist())
        ignored = sorted(set(seen) & set(self.spec.ignored_values))
        classes = {value - self.spec.first_value for value in seen if value not in ignored}
        known = classes & set(range(self.num_classes))
        if ignored and len(known) <= self.num_classes / 2:
            return (
                f"masks in {self.spec.folder} name {len(known)} of {self.num_classes} classes; they also"
                f" hold the value {ignored[0]}, which is read as no class. If it is one, say which"
                " values are ignored and which value is the first class's",
            )
        return ()

    def _path(self, key: str) -> Path:
        name = PurePosixPath(key).with_suffix(".png")
        full = self.spec.folder / name
        return full if full.exists() else self.spec.folder / name.name
