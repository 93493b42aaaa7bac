"""`FoldsAnnotator`: every image is labeled by the classifier that was not taught on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tokenlabel.annotators.image_model import ImageAnnotator, Item
from tokenlabel.annotators.protocol import Pixels
from tokenlabel.choices import Arithmetic
from tokenlabel.data.orientation import UPRIGHT
from tokenlabel.labels import LabelMap
from tokenlabel.progress import console, first_process
from tokenlabel.runs.folds import Folds

__all__ = ["FoldsAnnotator"]


class FoldsAnnotator:
    """The classifiers of `teach --folds`, by fold; images that none of them saw are labeled by all.

    The mean of their probabilities labels those. The members differ in their weights alone.
    """

    def __init__(self, members: Sequence[ImageAnnotator], folds: Folds) -> None:
        self._members, self._folds = list(members), folds
        self._together = _Together(self._members)
        self._unseen: int | None = None  # of the images that will be labeled, once they are known
        self.num_classes, self.channels = members[0].num_classes, members[0].channels

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return self._members[0].class_names

    @property
    def notes(self) -> tuple[str, ...]:
        return self._members[0].notes

    def check_names(self, keys: Sequence[str]) -> None:
        """Say how many of the images no network was taught by name, and which may only seem to be.

        An image is known by its name alone: in another part of the data it may be another image.
        """
        unseen = [key for key in keys if self._folds.fold_of(key) is None]
        self._unseen = len(unseen)
        if not first_process():
            return
        known, taught = len(keys) - len(unseen), self._folds.images
        if 0 < known < taught:
            console.print(
                f"warning: {known:,} of these images have names of the {taught:,} that"
                f" {self._folds.folder} was taught on, and are labeled by one network each: should they"
                " be other images (of a validation part, for one), rename them",
                soft_wrap=True,
            )
        if not unseen:
            return
        said = f"{len(unseen):,} of {len(keys):,} images, such as {unseen[0]}, are in no fold"
        if len(unseen) == len(keys):
            said = (
                f"warning: {said}: if {self._folds.folder} was taught on these images, give the same"
                " folder or tar as then; otherwise a network labels images it has seen"
            )
        console.print(f"{said}; all networks label them together", soft_wrap=True)

    @property
    def description(self) -> dict[str, Any]:
        each = [member.description for member in self._members]
        found = {
            **each[0],
            "kind": "folds",
            "folds": len(each),
            "folds_sha256": self._folds.sha256,
            "weights_sha256": [one["weights_sha256"] for one in each],
        }
        unseen = [one["held_out"] for one in each if "held_out" in one]
        if len(unseen) == len(each):
            images = sum(one["images"] for one in unseen)
            right = sum(one["top1"] * one["images"] for one in unseen)
            found["held_out"] = {"top1": right / images, "images": images}
        if self._unseen is not None:
            found["unseen_images"] = self._unseen
        return found

    def settle_arithmetic(self, wanted: Arithmetic, images: int) -> None:
        for member in self._members:
            member.settle_arithmetic(wanted, images)
            wanted = member.description["dtype"]

    def batch_size(self) -> int:
        return self._members[0].batch_size()

    def prepare(
        self, key: str, pixels: Pixels, orientation: int = UPRIGHT
    ) -> tuple[int | None, Item]:
        return self._folds.fold_of(key), self._members[0].prepare(key, pixels, orientation)

    def annotate(self, batch: Sequence[tuple[int | None, Item]]) -> list[LabelMap]:
        """The images of one fold go through their network together."""
        maps: dict[int, LabelMap] = {}
        for fold in dict.fromkeys(fold for fold, _ in batch):
            places = [place for place, (of, _) in enumerate(batch) if of == fold]
            by = self._together if fold is None else self._members[fold]
            found = by.annotate([batch[place][1] for place in places])
            maps |= dict(zip(places, found, strict=True))
        return [maps[place] for place in range(len(batch))]


class _Together(ImageAnnotator):
    """Several annotators that differ in their weights alone, as one: the mean of their probabilities."""

    def __init__(self, members: Sequence[ImageAnnotator]) -> None:
        vars(self).update(vars(members[0]))
        self._members = list(members)

    def logits(self, images: Tensor) -> Tensor:
        each = [member.logits(images).softmax(-1) for member in self._members]
        return torch.stack(each).mean(0).clamp(min=1e-30).log()
