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

from tokenlabel.errors import InputError
from tokenlabel.segmentation.bootstrap import intervals, paired_differences
from tokenlabel.segmentation.classes import IGNORED
from tokenlabel.segmentation.dataset import PairBatch
from tokenlabel.segmentation.metrics import (
    SegmentationCounts,
    measures,
    write_scenes,
    write_table,
)
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


def counted(predicted: Tensor, labels: Tensor, classes: int = CLASSES) -> SegmentationCounts:
    """Of scenes [N, H, W]."""
    counts = SegmentationCounts.zeros(len(labels), classes)
    for scene, (found, mask) in enumerate(zip(predicted, labels, strict=True)):
        counts.add(scene, found.short().numpy(), mask.short().numpy())
    return counts


@pytest.mark.parametrize("present", [2, 5, CLASSES])
def test_measures_equal_torchmetrics(present: int) -> None:
    predicted, labels = maps(present, present)
    summary = counted(predicted, labels).summary()
    options = {"num_classes": CLASSES, "ignore_index": IGNORED, "validate_args": False}
    theirs = MulticlassJaccardIndex(**options)(predicted, labels)
    assert summary["miou"] == pytest.approx(float(theirs), abs=1e-6)
    theirs = MulticlassAccuracy(average="macro", **options)(predicted, labels)
    assert summary["class_accuracy"] == pytest.approx(float(theirs), abs=1e-6)
    theirs = MulticlassAccuracy(average="micro", **options)(predicted, labels)
    assert summary["pixel_accuracy"] == pytest.approx(float(theirs), abs=1e-6)


def eroded(mask: np.ndarray, times: int) -> np.ndarray:
    """As the reference implementation of boundary IoU: 3 x 3, border of zeros, so many times."""
    for _ in range(times):
        padded = np.pad(mask, 1)
        rows, cols = mask.shape
        mask = np.all([padded[i : i + rows, j : j + cols] for i in range(3) for j in range(3)], 0)
    return mask


def test_boundary_iou_equals_its_definition() -> None:
    """Per class, of the mask without its erosion by 2 % of the diagonal."""
    rng = np.random.default_rng(0)
    blocks = [rng.integers(3, size=(5, 6)).repeat(20, 0).repeat(25, 1) for _ in range(2)]
    labels, predicted = blocks[0], np.roll(blocks[0], (3, -2), (0, 1))
    labels[40:50, 60:75] = IGNORED
    counts = counted(torch.from_numpy(predicted)[None], torch.from_numpy(labels)[None], 3)
    reach = round(0.02 * np.hypot(100, 150))
    assert reach == 4
    for number in range(3):
        edges = [(m == number) & ~eroded(m == number, reach) for m in (labels, predicted)]
        seen = labels != IGNORED
        union = ((edges[0] | edges[1]) & seen).sum()
        expected = (edges[0] & edges[1] & seen).sum() / union
        assert float(counts.class_boundary_iou()[number]) == pytest.approx(expected)
        assert 0 < expected < 1


def test_a_class_that_is_only_predicted_counts_as_missed() -> None:
    counts = counted(torch.tensor([[[0, 0, 1, 2]]]), torch.tensor([[[0, 0, 1, 1]]]), 4)
    assert counts.class_iou().nan_to_num(-1).tolist() == [1.0, 0.5, 0.0, -1.0]
    assert counts.summary()["miou"] == pytest.approx(0.5)
    assert counts.summary()["class_accuracy"] == pytest.approx(0.75)


def test_classes_that_never_come_up_lower_the_mean_over_all() -> None:
    """A background that is all there is scores 1; the object of the class list was not measured."""
    counts = counted(torch.zeros(1, 3, 3), torch.zeros(1, 3, 3), 2)
    assert counts.summary()["miou"] == 1.0
    assert counts.summary()["miou_all"] == 0.5


def test_scenes_add_up() -> None:
    """The measures of a data set are those of all of its pixels, not means of its scenes."""
    predicted, labels = maps(0)
    summary = counted(predicted, labels).summary()
    theirs = MulticlassJaccardIndex(CLASSES, ignore_index=IGNORED, validate_args=False)
    by_scene = [float(theirs(p, m)) for p, m in zip(predicted, labels, strict=True)]
    assert summary["miou"] != pytest.approx(np.mean(by_scene), abs=1e-4)
    assert measures(counted(predicted, labels).scenes)["miou"].tolist() == pytest.approx(by_scene)


def test_nothing_labelled_is_no_error() -> None:
    counts = counted(torch.zeros(1, 1, 5), torch.full((1, 1, 5), IGNORED), 3)
    assert set(counts.summary().values()) == {0.0}


def test_table_has_a_line_a_class_and_scenes_a_line_each(tmp_path: Path) -> None:
    counts = counted(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 0, 0, 1]]]), 3)
    names = ("sea, lake", "sand", "rock")
    write_table(counts, names, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == list(names)
    assert float(rows[0]["iou"]) == pytest.approx(2 / 3, abs=1e-6)
    assert rows[2]["iou"] == ""
    unlabeled = SegmentationCounts(torch.cat([counts.scenes, torch.zeros_like(counts.scenes)]))
    write_scenes(unlabeled, ["a.jpg", "b.jpg"], tmp_path / "scenes.csv")
    with (tmp_path / "scenes.csv").open() as stream:
        row, other = csv.DictReader(stream)
    assert row["scene"] == "a.jpg"
    assert float(row["miou"]) == pytest.approx(counts.summary()["miou"], abs=1e-6)
    assert set(other.values()) == {"b.jpg", ""}


# -- how far they may be trusted -------------------------------------------------------------------


def scenes_of(quality: float, seed: int, count: int = 60) -> SegmentationCounts:
    """Scenes of three classes, of whose pixels about a share of `quality` is right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=(count, 8, 10))
    shares = np.clip(quality + 0.25 * np.random.default_rng(9).standard_normal(count), 0, 1)
    right = rng.random(labels.shape) < shares[:, None, None]
    predicted = np.where(right, labels, rng.integers(3, size=labels.shape))
    return counted(torch.from_numpy(predicted), torch.from_numpy(labels), 3)


def test_intervals_hold_the_measure_and_narrow_with_more_scenes() -> None:
    few, many = scenes_of(0.7, 1, 20), scenes_of(0.7, 1, 200)
    widths = []
    for counts in (few, many):
        low, high = intervals(counts)["miou"]
        assert low < counts.summary()["miou"] < high
        widths.append(high - low)
    assert 2 < widths[0] / widths[1] < 5  # about the root of ten
    assert intervals(few) == intervals(few)


def test_paired_differences_see_what_intervals_apart_do_not() -> None:
    """Scenes are hard for both alike; their own scatter is no reason to call a difference chance."""
    better, worse = scenes_of(0.72, 1), scenes_of(0.70, 1)
    (low, high), other = intervals(better)["pixel_accuracy"], worse.summary()["pixel_accuracy"]
    assert low < other < high
    found = paired_differences([better], [worse])["pixel_accuracy"]
    assert found.mean == pytest.approx(
        better.summary()["pixel_accuracy"] - worse.summary()["pixel_accuracy"]
    )
    assert found.interval[0] < found.mean < found.interval[1]
    assert found.p < 0.01
    back = paired_differences([worse], [better])["pixel_accuracy"]
    assert (back.mean, back.p) == (pytest.approx(-found.mean), found.p)
    same = paired_differences([better], [better])["pixel_accuracy"]
    assert (same.mean, same.interval, same.p) == (0, (0, 0), 1.0)


def test_runs_that_disagree_widen_the_difference() -> None:
    one = paired_differences([scenes_of(0.72, 1)], [scenes_of(0.70, 1)])["miou"]
    runs = [scenes_of(q, s) for q, s in ((0.60, 1), (0.84, 2))]
    two = paired_differences(runs, [scenes_of(0.70, 1), scenes_of(0.70, 2)])["miou"]
    assert two.interval[1] - two.interval[0] > 2 * (one.interval[1] - one.interval[0])


def drawn_runs(rng: np.random.Generator, runs: int, gain: float = 0.0) -> list[SegmentationCounts]:
    """Of two classes on the same 20 scenes; runs differ by 0.02, and on each scene by 0.02 more."""
    hard = 0.1 * np.random.default_rng(1).standard_normal(20)
    share = 0.7 + gain + hard + 0.02 * rng.standard_normal((runs, 1))
    share = (share + 0.02 * rng.standard_normal((runs, 20))).clip(0, 1)
    hits = rng.binomial(200, share[..., None], (runs, 20, 2))
    predicted = hits + (200 - hits[..., ::-1])
    counts = np.stack([hits, np.full_like(hits, 200), predicted] * 2, -1)
    return [SegmentationCounts(torch.from_numpy(run)) for run in counts]


@pytest.mark.parametrize(("ours", "theirs"), [(2, 2), (3, 3), (3, 1)])
def test_chance_is_seldom_called_a_difference(
    ours: int, theirs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of one distribution on both sides: p < 0.05 in 5 % of all cases, and a gain is seen."""
    monkeypatch.setattr("tokenlabel.segmentation.bootstrap._DRAWS", 200)
    rng = np.random.default_rng(0)
    cases = [
        paired_differences(drawn_runs(rng, ours), drawn_runs(rng, theirs))["miou"]
        for _ in range(200)
    ]
    assert np.mean([found.p < 0.05 for found in cases]) <= 0.08
    assert np.mean([found.interval[0] < 0 < found.interval[1] for found in cases]) >= 0.92
    found = paired_differences(drawn_runs(rng, ours, 0.25), drawn_runs(rng, theirs))["miou"]
    assert found.p < (0.1 if ours == 2 else 0.05)
    assert found.interval[1] - found.interval[0] > 0.04


def test_one_scene_is_not_compared() -> None:
    with pytest.raises(InputError, match="two scenes or more"):
        paired_differences([scenes_of(0.7, 1, 1)], [scenes_of(0.6, 1, 1)])


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


def test_a_soft_label_is_that_of_every_pixel_of_its_cell() -> None:
    """Certain cells cost what the same mask costs; weights and classes weigh alike."""
    student = TwoScores()
    weights = torch.tensor([0.5, 1.0, 2.0, 1.5])
    task = SegmentationTask(
        student, mean=(0.5,) * 3, std=(0.25,) * 3, soft_weight=0.5, class_weights=weights
    )
    cells = torch.tensor([[0, 1], [2, 3], [1, 0]])
    mask = cells.repeat_interleave(2, 0).repeat_interleave(4, 1).short()
    images = torch.zeros(2, 3, 6, 8, dtype=torch.uint8)
    none = torch.full((2, 6, 8), IGNORED, dtype=torch.int16)
    soft = F.one_hot(cells, 4).permute(2, 0, 1).float().repeat(2, 1, 1, 1)
    by_mask = task(PairBatch(images, torch.stack([mask, mask]), ("a", "b")))
    by_cell = task(PairBatch(images, none, ("a", "b"), soft))
    for name in by_mask:
        assert float(by_cell[name]) == pytest.approx(0.5 * float(by_mask[name])), name
    half = task(
        PairBatch(
            images,
            torch.stack([mask, none[1]]),
            ("a", "b"),
            soft * torch.tensor([0.0, 1.0])[:, None, None, None],
        )
    )  # a mask, and a scene with soft labels
    assert float(half["loss"]) < float(by_mask["loss"])
    unsure = task(PairBatch(images, none, ("a", "b"), torch.full_like(soft, 0.25)))
    expected = [-(scores.log_softmax(1) * weights[:, None, None]).mean() for scores in
                (student.logits, student.auxiliary)]  # fmt: skip
    assert float(unsure["decode"]) == pytest.approx(0.5 * float(expected[0]))
