"""Segmentation metrics from pixel counts of every scene and class: scenes, tiles and ranks add up."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenlabel.files import replacing
from tokenlabel.segmentation.classes import IGNORED, Labels

__all__ = ["COUNTS", "SegmentationCounts", "measures", "write_scenes", "write_table"]

COUNTS = 6  # of a class: pixels found, true, predicted; the same near boundaries
_BOUNDARY = 0.02  # of the image's diagonal: how far a boundary reaches into its class
_OUTSIDE = -9  # the class of what lies beyond the image


@dataclass
class SegmentationCounts:
    """Pixels by scene and class: found, true, predicted, and the same three near boundaries.

    Summed over scenes the first three are the diagonal and the sums of the data set's one confusion
    matrix, of which published figures are made. Pixels near a boundary are those of a class that lie
    within 2 % of the image's diagonal of another class or of the image's edge, in the mask or in the
    prediction (Cheng et al., "Boundary IoU", 2021).
    """

    scenes: Tensor  # [N, C, 6] int64

    @classmethod
    def zeros(cls, scenes: int, classes: int) -> SegmentationCounts:
        return cls(torch.zeros(scenes, classes, COUNTS, dtype=torch.int64))

    def add(self, scene: int, predicted: Labels, labels: Labels) -> None:
        """Add a scene's pixels: classes and labels [H, W]; `IGNORED` labels do not count."""
        counted = labels != IGNORED
        near = [_near_boundary(classes) & counted for classes in (labels, predicted)]
        hits = (predicted == labels) & counted
        columns = (
            labels[hits], labels[counted], predicted[counted],
            labels[hits & near[0] & near[1]], labels[near[0]], predicted[near[1]],
        )  # fmt: skip
        size = self.scenes.shape[1]
        counts = np.stack([np.bincount(column, minlength=size) for column in columns], 1)
        self.scenes[scene] += torch.from_numpy(counts)

    @property
    def classes(self) -> Tensor:
        """Counts [C, 6] of the whole data set."""
        return self.scenes.sum(0)

    def labeled(self) -> Tensor:
        """Whether a scene has a pixel with a label, [N] bool: others have no measures."""
        return self.scenes[..., 1].sum(-1) > 0

    def class_iou(self) -> Tensor:
        """Intersection over union of each class, [C] float64; NaN where it never comes up."""
        return _iou(*self.classes[:, :3].double().unbind(-1))

    def class_accuracy(self) -> Tensor:
        """The share of each class's pixels that are found, [C] float64; NaN where it has none."""
        return self.classes[:, 0].double() / self.classes[:, 1]

    def class_boundary_iou(self) -> Tensor:
        """As `class_iou`, of the pixels near boundaries."""
        return _iou(*self.classes[:, 3:].double().unbind(-1))

    def summary(self) -> dict[str, float]:
        """The means of `measures` over the whole data set."""
        return {name: float(value) for name, value in measures(self.classes).items()}


def measures(counts: Tensor) -> dict[str, Tensor]:
    """Fractions in [0, 1] of counts [..., C, 6]: values [...] by name.

    "miou", as it is published, is the mean over the classes that occur or are predicted; "miou_all" is
    that over all listed classes, those that never come up counting as 0: where it is lower, fewer
    classes were measured than are listed. "class_accuracy" is a mean over classes that occur,
    "boundary_iou" one over classes that have a boundary.
    """
    hits, true, predicted, *near = counts.double().unbind(-1)
    iou = _iou(hits, true, predicted)
    return {
        "miou": _mean(iou),
        "miou_all": iou.nan_to_num().mean(-1),
        "class_accuracy": _mean(hits / true),
        "pixel_accuracy": hits.sum(-1) / true.sum(-1).clamp(min=1),
        "boundary_iou": _mean(_iou(*near)),
    }


def _iou(hits: Tensor, true: Tensor, predicted: Tensor) -> Tensor:
    return hits / (true + predicted - hits)


def _mean(values: Tensor) -> Tensor:
    """The mean of the last axis without what is not a number; 0 where nothing is left."""
    return values.nanmean(-1).nan_to_num()


def _near_boundary(classes: Labels) -> NDArray[np.bool_]:
    """Pixels [H, W] from which another class, or the image's edge, is within reach."""
    reach = max(round(_BOUNDARY * math.hypot(*classes.shape)), 1)
    padded = np.pad(classes, reach, constant_values=_OUTSIDE)
    most = least = padded
    for axis in (0, 1):
        most, least = (
            _windowed(values, 2 * reach + 1, axis, pick)
            for values, pick in ((most, np.maximum), (least, np.minimum))
        )
    return np.asarray(most != least)


def _windowed(values: Labels, length: int, axis: int, pick: np.ufunc) -> Labels:
    """The extreme of each window of `length` along an axis, by doubling."""
    values, width = np.moveaxis(values, axis, 0), 1
    while width < length:
        step = min(width, length - width)
        values, width = pick(values[:-step], values[step:]), width + step
    return np.moveaxis(values, 0, axis)


def write_table(counts: SegmentationCounts, names: Sequence[str], file: Path) -> None:
    """One line a class as CSV: name, IoU, boundary IoU, accuracy, its share of the labeled pixels."""
    pixels = counts.classes[:, 1]
    columns = (
        counts.class_iou(), counts.class_boundary_iou(), counts.class_accuracy(),
        pixels / pixels.sum().clamp(min=1),
    )  # fmt: skip
    head = ("class", "iou", "boundary_iou", "accuracy", "share_of_pixels")
    _write(file, head, names, columns)


def write_scenes(counts: SegmentationCounts, keys: Sequence[str], file: Path) -> None:
    """One line a scene as CSV, with its own means; empty where no pixel has a label."""
    own = measures(counts.scenes)
    names = ("miou", "class_accuracy", "pixel_accuracy", "boundary_iou")
    columns = [own[name].where(counts.labeled(), torch.nan) for name in names]
    _write(file, ("scene", *names), keys, columns)


def _write(
    file: Path, head: Sequence[str], names: Sequence[str], columns: Sequence[Tensor]
) -> None:
    with replacing(file) as aside, aside.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(head)
        for name, *values in zip(names, *columns, strict=True):
            writer.writerow([name, *(_written(float(value)) for value in values)])


def _written(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"
