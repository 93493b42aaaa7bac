"""Metrics as summed counts: batches, ranks and padding cannot bias them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenlabel.output import DenseOutput, fuse

__all__ = ["ClassificationCounts", "predictions"]

_BINS = 15  # of confidence, as in Guo et al. 2017


def predictions(output: DenseOutput, weight: float = 0.5) -> dict[str, Tensor]:
    """Class scores [B, C] by each of the three rules: class token, best token, both fused."""
    return {
        "class": output.logits,
        "token": output.tokens.amax((1, 2)),
        "fused": fuse(output, weight),
    }


@dataclass
class ClassificationCounts:
    """Counts from which accuracy, calibration and the confusion matrix follow.

    All tensors add up across batches and ranks. Accuracies are fractions in [0, 1].
    """

    confusion: Tensor  # [C, C] int64: rows are true classes, columns predicted
    top5: Tensor  # [C] int64: images of each class whose class is among the five best
    bin_count: Tensor  # [bins] int64: predictions by confidence
    bin_confidence: Tensor  # [bins] float64: summed confidence
    bin_correct: Tensor  # [bins] int64
    loss: Tensor  # [] float64: summed cross-entropy

    @classmethod
    def zeros(cls, num_classes: int, device: torch.device | str = "cpu") -> ClassificationCounts:
        def whole(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        def real(*shape: int) -> Tensor:
            # MPS has no float64; sums of confidences need no more than float32 there
            dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            whole(num_classes, num_classes),
            whole(num_classes),
            whole(_BINS),
            real(_BINS),
            whole(_BINS),
            real(),
        )

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor, real: Tensor | None = None) -> None:
        """Add a batch: logits [B, C], labels [B]; `real` [B] bool is false for padding."""
        if real is not None:
            logits, labels = logits[real], labels[real]
        if not len(labels):
            return
        log_q = logits.float().log_softmax(-1)
        confidence, predicted = log_q.exp().max(-1)
        correct = predicted == labels
        classes = self.confusion.shape[0]
        flat = labels * classes + predicted
        self.confusion += torch.bincount(flat, minlength=classes**2).view(classes, classes)
        best = logits.topk(min(5, classes), -1).indices
        hits = (best == labels[:, None]).any(-1)
        self.top5 += torch.bincount(labels[hits], minlength=classes)
        bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
        self.bin_count += torch.bincount(bins, minlength=_BINS)
        self.bin_correct += torch.bincount(bins[correct], minlength=_BINS)
        self.bin_confidence.index_add_(0, bins, confidence.to(self.bin_confidence.dtype))
        self.loss -= log_q.gather(1, labels[:, None]).sum().to(self.loss.dtype)

    def tensors(self) -> tuple[Tensor, ...]:
        """Every count, to be summed over ranks in place."""
        return (
            self.confusion,
            self.top5,
            self.bin_count,
            self.bin_confidence,
            self.bin_correct,
            self.loss,
        )

    def add(self, other: ClassificationCounts) -> None:
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            mine += theirs

    @property
    def total(self) -> int:
        return int(self.confusion.sum())

    @property
    def top1_accuracy(self) -> float:
        return int(self.confusion.diagonal().sum()) / max(self.total, 1)

    @property
    def top5_accuracy(self) -> float:
        return int(self.top5.sum()) / max(self.total, 1)

    @property
    def mean_loss(self) -> float:
        """Mean cross-entropy in nats."""
        return float(self.loss) / max(self.total, 1)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error over 15 equal bins of confidence, in [0, 1]."""
        gap = (self.bin_confidence - self.bin_correct).abs().sum()
        return float(gap) / max(self.total, 1)

    def per_class_accuracy(self) -> Tensor:
        """Top-1 of each true class, [C]; NaN where a class has no image."""
        return self.confusion.diagonal() / self.confusion.sum(1)

    def summary(self) -> dict[str, float]:
        return {
            "top1": self.top1_accuracy,
            "top5": self.top5_accuracy,
            "loss": self.mean_loss,
            "ece": self.calibration_error,
            "images": self.total,
        }
