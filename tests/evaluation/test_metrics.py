"""Counts against their definitions, and the same however batches are divided."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from tokenlabel.evaluation.metrics import ClassificationCounts, accepted_label

CLASSES = 12


def data(count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, CLASSES, generator=generator) * 2
    labels = torch.randint(CLASSES, (count,), generator=generator)
    labels[::3] = logits[::3].argmax(-1)
    return logits, labels


def counted(logits: torch.Tensor, labels: torch.Tensor) -> ClassificationCounts:
    counts = ClassificationCounts.zeros(CLASSES)
    counts.update(logits, labels)
    return counts


def test_accuracies_and_confusion_equal_scikit_learns() -> None:
    logits, labels = data()
    counts = counted(logits, labels)
    expected = confusion_matrix(labels, logits.argmax(-1), labels=range(CLASSES))
    assert (counts.confusion.numpy() == expected).all()
    assert (counts.correct.numpy() == expected.diagonal()).all()
    assert (counts.images.numpy() == expected.sum(1)).all()
    for k, accuracy in [(1, counts.top1_accuracy), (5, counts.top5_accuracy)]:
        reference = top_k_accuracy_score(labels, logits.numpy(), k=k, labels=range(CLASSES))
        assert accuracy == pytest.approx(reference)
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert counts.mean_loss == pytest.approx(loss, rel=1e-6)


def test_calibration_error_equals_its_definition() -> None:
    logits, labels = data()
    confidence, predicted = logits.softmax(-1).max(-1)
    expected = 0.0
    for b in range(15):
        inside = (confidence >= b / 15) & (confidence < (b + 1) / 15)
        if inside.any():
            gap = confidence[inside].mean() - (predicted == labels)[inside].float().mean()
            expected += inside.float().mean().item() * abs(gap.item())
    assert counted(logits, labels).calibration_error == pytest.approx(expected, abs=1e-6)


def test_division_into_batches_and_padding_change_nothing() -> None:
    logits, labels = data()
    whole = counted(logits, labels).summary()
    merged = ClassificationCounts.zeros(CLASSES)
    for part in torch.arange(len(labels)).split(7):
        counts = ClassificationCounts.zeros(CLASSES)
        padded = torch.cat([part, part[:2]])
        real = torch.arange(len(padded)) < len(part)
        counts.update(logits[padded], labels[padded], real)
        merged = ClassificationCounts(
            *(a + b for a, b in zip(merged.tensors(), counts.tensors(), strict=True))
        )
    assert merged.summary() == whole


def test_an_empty_set_is_no_error() -> None:
    counts = ClassificationCounts.zeros(CLASSES)
    counts.update(torch.empty(0, CLASSES), torch.empty(0, dtype=torch.long))
    assert counts.top1_accuracy == 0.0


def test_with_several_right_answers_each_of_them_counts() -> None:
    logits = torch.tensor([[0.1, 0.9, 0.5], [0.9, 0.1, 0.5]])
    accepted = torch.tensor([[2, 1], [1, -1]])
    assert accepted_label(logits, accepted).tolist() == [1, 1]


def test_scores_that_are_not_finite_spoil_no_count() -> None:
    counts = ClassificationCounts.zeros(3)
    counts.update(torch.full((2, 3), float("nan")), torch.tensor([0, 1]))
    assert counts.total == 2
    assert counts.mean_loss == 1e4


def test_very_many_classes_need_no_matrix_of_them() -> None:
    """ImageNet-21k's would take 3.8 GB."""
    counts = ClassificationCounts.zeros(21_841)
    counts.update(
        torch.nn.functional.one_hot(torch.tensor([20_000, 7, 7]), 21_841) * 9.0,
        torch.tensor([20_000, 7, 8]),
    )
    assert sum(tensor.numel() for tensor in counts.tensors()) < 100_000
    assert counts.top1_accuracy == pytest.approx(2 / 3)
    assert counts.correct[[20_000, 7, 8]].tolist() == [1, 1, 0]
