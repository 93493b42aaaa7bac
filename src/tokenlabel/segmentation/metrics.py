"""Segmentation metrics as one confusion matrix of pixel counts: images, tiles and ranks add up."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tokenlabel.files import replacing
from tokenlabel.segmentation.classes import IGNORED

__all__ = ["SegmentationCounts", "write_table"]


@dataclass
class SegmentationCounts:
    """Pixels of a data set by true and predicted class. All measures are fractions in [0, 1].

    "miou", as it is published, is the mean over the classes that occur or are predicted;
    "miou_all" is that over all listed classes, those that never come up counting as 0: where it is
    lower, fewer classes were measured than are listed. Accuracy is a mean over classes that occur.
    """

    confusion: Tensor  # [C, C] int64: rows are true classes, columns predicted

    @classmethod
    def zeros(cls, num_classes: int) -> SegmentationCounts:
        return cls(torch.zeros(num_classes, num_classes, dtype=torch.int64))

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Add pixels: classes and labels of one shape; `IGNORED` labels do not count."""
        counted = labels != IGNORED
        classes = self.confusion.shape[0]
        flat = labels[counted].long() * classes + predicted[counted].long()
        found = torch.bincount(flat, minlength=classes**2)
        self.confusion += found.view(classes, classes).to(self.confusion.device)

    def class_iou(self) -> Tensor:
        """Intersection over union of each class, [C] float64; NaN where it never comes up."""
        hits = self.confusion.diagonal().double()
        return hits / (self.confusion.sum(0) + self.confusion.sum(1) - hits)

    def class_accuracy(self) -> Tensor:
        """The share of each class's pixels that are found, [C] float64; NaN where it has none."""
        return self.confusion.diagonal().double() / self.confusion.sum(1)

    def summary(self) -> dict[str, float]:
        """Mean IoU of the classes that come up and of all, mean class accuracy, pixel accuracy."""
        total = int(self.confusion.sum())
        return {
            "miou": _mean(self.class_iou()),
            "miou_all": float(self.class_iou().nan_to_num().mean()),
            "class_accuracy": _mean(self.class_accuracy()),
            "pixel_accuracy": int(self.confusion.diagonal().sum()) / max(total, 1),
        }


def _mean(values: Tensor) -> float:
    return 0.0 if bool(values.isnan().all()) else float(values.nanmean())


def write_table(counts: SegmentationCounts, names: Sequence[str], file: Path) -> None:
    """One line a class as CSV: name, IoU, accuracy, its share of the labeled pixels."""
    shares = counts.confusion.sum(1) / counts.confusion.sum().clamp(min=1)
    rows = zip(names, counts.class_iou(), counts.class_accuracy(), shares, strict=True)
    with replacing(file) as aside, aside.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["class", "iou", "accuracy", "share_of_pixels"])
        for name, *values in rows:
            writer.writerow([name, *(f"{float(value):.6f}" for value in values)])
