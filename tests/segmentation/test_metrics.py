"""Counts equal torchmetrics', whatever is absent or ignored; losses equal their definition."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from tokenlabel.segmentation.classes import IGNORED
from tokenlabel.segmentation.dataset import PairBatch
from tokenlabel.segmentation.metrics import SegmentationCounts, write_table
from tokenlabel.segmentation.model import SegmentationOutput
from tokenlabel.segmentation.task import SegmentationTask, class_weights

CLASSES = 7


def maps(seed: int, present: int = CLASSES) -> tuple[Tensor, Tensor]:
    """Predictions and labels [4, 20, 30], a tenth unlabelled, of the first `present` classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(present, (4, 20, 30), generator=generator)
    predicted = torch.randint(present, labels.shape, generator=generator)
    predicted = torch.where(torch.rand(labels.shape, generator=generator) < 0.6, labels, predicted)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = IGNORED
    return predicted, labels


@pytest.mark.parametrize("present", [2, 5, CLASSES])
def test_measures_equal_torchmetrics(present: int) -> None:
    predicted, labels = maps(present, present)
    counts = SegmentationCounts.zeros(CLASSES)
    counts.update(predicted, labels)
    summary = counts.summary()
    options = {"num_classes": CLASSES, "ignore_index": IGNORED, "validate_args": False}
    theirs = MulticlassJaccardIndex(**options)(predicted, labels)
    assert summary["miou"] == pytest.approx(float(theirs), abs=1e-6)
    theirs = MulticlassAccuracy(average="macro", **options)(predicted, labels)
    assert summary["class_accuracy"] == pytest.approx(float(theirs), abs=1e-6)
    theirs = MulticlassAccuracy(average="micro", **options)(predicted, labels)
    assert summary["pixel_accuracy"] == pytest.approx(float(theirs), abs=1e-6)


def test_a_class_that_is_only_predicted_counts_as_missed() -> None:
    counts = SegmentationCounts.zeros(4)
    counts.update(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1, 1]))
    assert counts.class_iou().nan_to_num(-1).tolist() == [1.0, 0.5, 0.0, -1.0]
    assert counts.summary()["miou"] == pytest.approx(0.5)
    assert counts.summary()["class_accuracy"] == pytest.approx(0.75)


def test_classes_that_never_come_up_lower_the_mean_over_all() -> None:
    """A background that is all there is scores 1; the object of the class list was not measured."""
    counts = SegmentationCounts.zeros(2)
    counts.update(torch.zeros(9, dtype=torch.int16), torch.zeros(9, dtype=torch.int16))
    assert counts.summary()["miou"] == 1.0
    assert counts.summary()["miou_all"] == 0.5


def test_images_add_up_in_any_division() -> None:
    predicted, labels = maps(0)
    whole = SegmentationCounts.zeros(CLASSES)
    whole.update(predicted, labels)
    parts = SegmentationCounts.zeros(CLASSES)
    for image, mask in zip(predicted.flatten(0, 1), labels.flatten(0, 1), strict=True):
        parts.update(image, mask)
    assert torch.equal(whole.confusion, parts.confusion)


def test_nothing_labelled_is_no_error() -> None:
    counts = SegmentationCounts.zeros(3)
    counts.update(torch.zeros(5, dtype=torch.int16), torch.full((5,), IGNORED, dtype=torch.int16))
    assert set(counts.summary().values()) == {0.0}


def test_table_has_a_line_a_class(tmp_path: Path) -> None:
    counts = SegmentationCounts.zeros(3)
    counts.update(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1]))
    names = ("sea, lake", "sand", "rock")
    write_table(counts, names, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == list(names)
    assert float(rows[0]["iou"]) == pytest.approx(2 / 3, abs=1e-6)
    assert rows[2]["iou"] == "nan"


# -- losses ----------------------------------------------------------------------------------------


class TwoScores(nn.Module):
    """Fixed scores for both heads."""

    def __init__(self) -> None:
        super().__init__()
        self.logits, self.auxiliary = torch.randn(2, 2, 4, 6, 8, generator=torch.manual_seed(0))
        self.seen: Tensor | None = None

    def forward_heads(self, images: Tensor) -> SegmentationOutput:
        self.seen = images
        return SegmentationOutput(self.logits, self.auxiliary)


def batch() -> PairBatch:
    labels = torch.randint(4, (2, 6, 8), generator=torch.manual_seed(1), dtype=torch.int16)
    labels[:, :2] = IGNORED
    return PairBatch(torch.full((2, 3, 6, 8), 255, dtype=torch.uint8), labels, ("a", "b"))


def test_loss_is_the_mean_over_all_pixels_of_both_heads() -> None:
    student = TwoScores()
    task = SegmentationTask(student, mean=(0.5,) * 3, std=(0.25,) * 3, auxiliary_weight=0.4)
    losses = task(batch())
    labels = batch().labels.long()
    expected = []
    for logits in (student.logits, student.auxiliary):
        each = F.cross_entropy(logits, labels.clamp(min=0), reduction="none")
        expected.append(float(torch.where(labels == IGNORED, 0, each).mean()))
    assert float(losses["decode"]) == pytest.approx(expected[0])
    assert float(losses["auxiliary"]) == pytest.approx(expected[1])
    assert float(losses["loss"]) == pytest.approx(expected[0] + 0.4 * expected[1])
    assert student.seen is not None
    assert student.seen.unique().tolist() == [2.0]  # (1 - 0.5) / 0.25


def test_balanced_weights_give_classes_their_share() -> None:
    counts = torch.tensor([800, 150, 50, 0])
    assert torch.allclose(class_weights(counts, 0.0), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    full = class_weights(counts, 1.0) * counts
    assert torch.allclose(full[:3], torch.full((3,), 1000 / 3))
    half = class_weights(counts, 0.5)
    assert float((half * counts).sum()) == pytest.approx(1000)
    assert float(half[2] / half[0]) == pytest.approx(4.0)
    assert np.isfinite(half.numpy()).all()
