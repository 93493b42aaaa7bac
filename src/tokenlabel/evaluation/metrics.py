"""Metrics as summed counts: batches, ranks and padding cannot bias them.

Every count is a whole number, real ones in fixed point, so that sums are exact in any order: many
ranks give the very numbers of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from tokenlabel.output import TOKEN_SHARE, DenseOutput, fuse
from tokenlabel.supervision import Rule

__all__ = [
    "ClassificationCounts",
    "Counts",
    "accepted_label",
    "fixed",
    "prediction",
    "unfixed",
]

_BINS = 15  # of confidence, as in Guo et al. 2017
_MOST_CONFUSED = 4096  # classes up to which the confusion matrix is kept: C * C numbers
_ONE = 2**32  # fixed point: 31 bits are left for the sum, 2e9 images of confidence 1


def prediction(output: DenseOutput, rule: Rule, weight: float = TOKEN_SHARE) -> Tensor:
    """Class scores [B, C] by one rule: the class head, the best token of each class, both fused."""
    if rule == "class":
        return output.logits
    return output.tokens.amax((1, 2)) if rule == "token" else fuse(output, weight)


def accepted_label(logits: Tensor, accepted: Tensor) -> Tensor:
    """Of several right answers, the one with the highest score: [B].

    Scores [B, C]; `accepted` [B, M] holds class ids, padded with -1, the first of a row being real.
    Judged by this label, a prediction is right when it is any of the accepted ones (ReaL accuracy,
    Beyer et al. 2020).
    """
    scores = logits.gather(1, accepted.clamp(min=0)).masked_fill(accepted < 0, float("-inf"))
    return accepted.gather(1, scores.argmax(1, keepdim=True))[:, 0]


class Counts(Protocol):
    """What an evaluation counts: tensors of whole numbers that add up over batches and ranks."""

    measures: ClassVar[tuple[str, ...]]
    """Of `summary`, what a validation reports; the first decides."""

    images: Tensor
    """[C] int64: images of each class."""

    def __init__(self, *counts: Tensor) -> None: ...

    @classmethod
    def zeros(cls, num_classes: int, device: torch.device | str = "cpu") -> Self: ...

    def judge(self, scores: Tensor, accepted: Tensor) -> None:
        """Add a batch of scores [B, C]; `accepted` [B, M] holds class ids, padded with -1. Images
        without any are not judged."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Every count, to be summed over ranks in place."""

    @property
    def total(self) -> int:
        """How many images were judged."""

    def summary(self) -> dict[str, float]:
        """Every measure by name, and the number of images."""

    def table(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """A row for each class that has images, with the name of each value."""


@dataclass
class ClassificationCounts:
    """Counts from which accuracy, calibration and the confusion matrix follow.

    All tensors add up across batches and ranks. Accuracies are fractions in [0, 1].
    """

    measures: ClassVar[tuple[str, ...]] = ("top1", "top5", "loss")

    images: Tensor  # [C] int64: images of each class
    correct: Tensor  # [C] int64: those of them predicted right
    top5: Tensor  # [C] int64: those of them whose class is among the five best
    confusion: Tensor  # [C, C] int64: true class, predicted class; [0, 0] beyond 4096 classes
    bin_count: Tensor  # [bins] int64: predictions by confidence
    bin_confidence: Tensor  # [bins] int64: summed confidence, in fixed point
    bin_correct: Tensor  # [bins] int64
    loss: Tensor  # [] int64: summed cross-entropy, in fixed point

    @classmethod
    def zeros(cls, num_classes: int, device: torch.device | str = "cpu") -> ClassificationCounts:
        def whole(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        confusable = num_classes if num_classes <= _MOST_CONFUSED else 0
        return cls(
            whole(num_classes),
            whole(num_classes),
            whole(num_classes),
            whole(confusable, confusable),
            whole(_BINS),
            whole(_BINS),
            whole(_BINS),
            whole(),
        )

    def judge(self, scores: Tensor, accepted: Tensor) -> None:
        """See `Counts.judge`: any of the accepted classes is right."""
        self.update(scores, accepted_label(scores, accepted), (accepted >= 0).any(1))

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor, real: Tensor | None = None) -> None:
        """Add a batch: logits [B, C], labels [B]; `real` [B] bool is false for padding."""
        if real is not None:
            logits, labels = logits[real], labels[real]
        if not len(labels):
            return
        log_q = logits.float().log_softmax(-1)
        confidence, predicted = log_q.exp().nan_to_num(0.0).max(-1)
        correct = predicted == labels
        classes = len(self.images)
        self.images += torch.bincount(labels, minlength=classes)
        self.correct += torch.bincount(labels[correct], minlength=classes)
        if len(self.confusion):
            places = labels * classes + predicted
            self.confusion.view(-1).scatter_add_(0, places, torch.ones_like(places))
        best = logits.topk(min(5, classes), -1).indices
        hits = (best == labels[:, None]).any(-1)
        self.top5 += torch.bincount(labels[hits], minlength=classes)
        bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
        self.bin_count += torch.bincount(bins, minlength=_BINS)
        self.bin_correct += torch.bincount(bins[correct], minlength=_BINS)
        self.bin_confidence.index_add_(0, bins, fixed(confidence))
        self.loss += fixed(-log_q.gather(1, labels[:, None])).sum()

    def tensors(self) -> tuple[Tensor, ...]:
        """Every count, to be summed over ranks in place."""
        return (
            self.images,
            self.correct,
            self.top5,
            self.confusion,
            self.bin_count,
            self.bin_confidence,
            self.bin_correct,
            self.loss,
        )

    @property
    def total(self) -> int:
        return int(self.images.sum())

    @property
    def top1_accuracy(self) -> float:
        return int(self.correct.sum()) / max(self.total, 1)

    @property
    def top5_accuracy(self) -> float:
        return int(self.top5.sum()) / max(self.total, 1)

    @property
    def mean_loss(self) -> float:
        """Mean cross-entropy in nats."""
        return unfixed(self.loss) / max(self.total, 1)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error over 15 equal bins of confidence, in [0, 1]."""
        gap = (self.bin_confidence - self.bin_correct * _ONE).abs().sum()
        return unfixed(gap) / max(self.total, 1)

    def table(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """See `Counts.table`: how many images, how many right, and what the class is taken for."""
        rows = []
        wrong = self.confusion.clone().fill_diagonal_(0)
        for i, name in enumerate(names):
            images = int(self.images[i])
            if not images:
                continue
            rival, times = (int(wrong[i].argmax()), int(wrong[i].max())) if len(wrong) else (0, 0)
            rows.append(
                {
                    "class": name,
                    "images": images,
                    "top1": f"{int(self.correct[i]) / images:.4f}",
                    "top5": f"{int(self.top5[i]) / images:.4f}",
                    "most confused with": names[rival] if times else "",
                    "times": times,
                }
            )
        return rows

    def summary(self) -> dict[str, float]:
        return {
            "top1": self.top1_accuracy,
            "top5": self.top5_accuracy,
            "loss": self.mean_loss,
            "ece": self.calibration_error,
            "images": self.total,
        }


def unfixed(total: Tensor) -> float:
    """The real number that a sum of `fixed` values stands for."""
    return int(total) / _ONE


def fixed(values: Tensor) -> Tensor:
    """float32 numbers up to 1e4 as whole multiples of 2^-32; what is not finite counts as 1e4."""
    return (values.nan_to_num(1e4, 1e4).clamp(max=1e4) * _ONE).to(torch.int64)
