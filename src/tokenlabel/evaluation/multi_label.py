"""Counts of an evaluation where an image may have several classes: average precision and F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenlabel.evaluation.metrics import fixed, unfixed

__all__ = ["MultiLabelCounts"]

_BINS = 8192  # of logits from -16 to 16: 0.004 wide
_MOST = 16.0
_MIDDLE = _BINS // 2  # the first bin of logits from 0 on, of probabilities from 0.5 on


@dataclass
class MultiLabelCounts:
    """Images by class and score, from which average precision follows as of scores so rounded.

    Scores are rounded to 1/256 of a logit; what lies beyond 16 counts as 16. So the counts of many
    batches and ranks add up exactly, where average precision itself does not.
    """

    measures: ClassVar[tuple[str, ...]] = ("map", "f1", "loss")

    images: Tensor  # [C] int64: images that have the class
    having: Tensor  # [C, bins] int64: images that have the class, by their score for it
    scored: Tensor  # [C, bins] int64: all images, by their score for the class
    judged: Tensor  # [] int64: images
    loss: Tensor  # [] int64: summed binary cross-entropy, in fixed point

    @classmethod
    def zeros(cls, num_classes: int, device: torch.device | str = "cpu") -> MultiLabelCounts:
        def whole(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        return cls(
            whole(num_classes),
            whole(num_classes, _BINS),
            whole(num_classes, _BINS),
            whole(),
            whole(),
        )

    @torch.no_grad()
    def judge(self, scores: Tensor, accepted: Tensor) -> None:
        """See `Counts.judge`: scores are the logits of each class by itself."""
        real = (accepted >= 0).any(1)
        logits, accepted = scores[real].float(), accepted[real]
        if not len(logits):
            return
        classes = len(self.images)
        truth = logits.new_zeros((len(logits), classes + 1))
        truth = truth.scatter_(1, accepted.where(accepted >= 0, classes), 1.0)[:, :classes]
        bins = ((logits.nan_to_num(-_MOST) + _MOST) * (_BINS / (2 * _MOST))).long()
        places = bins.clamp(0, _BINS - 1) + torch.arange(classes, device=bins.device) * _BINS
        self.scored.view(-1).index_add_(0, places.flatten(), torch.ones_like(places).flatten())
        self.having.view(-1).index_add_(0, places.flatten(), truth.long().flatten())
        self.images += truth.long().sum(0)
        self.judged += len(logits)
        each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        self.loss += fixed(each.sum(1)).sum()

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.images, self.having, self.scored, self.judged, self.loss)

    @property
    def total(self) -> int:
        return int(self.judged)

    def average_precision(self) -> Tensor:
        """Of each class, in [0, 1], [C]; not a number where no image has it.

        The mean over its images of the precision among all that score as high, equal scores together.
        """
        hits = self.having.flip(1).cumsum(1).double()
        among = self.scored.flip(1).cumsum(1).double()
        precision = hits / among.clamp(min=1)
        return (precision * self.having.flip(1)).sum(1) / self.images.double()

    def f1(self) -> Tensor:
        """Of each class at the probability 0.5, [C]; 0 where it is neither had nor predicted."""
        hits = self.having[:, _MIDDLE:].sum(1).double()
        predicted = self.scored[:, _MIDDLE:].sum(1)
        return 2 * hits / (predicted + self.images).clamp(min=1)

    def summary(self) -> dict[str, float]:
        """Means over the classes that an image has; the loss is the mean over images, in nats."""
        present = self.images > 0
        some = bool(present.any())
        return {
            "map": float(self.average_precision()[present].mean()) if some else 0.0,
            "f1": float(self.f1()[present].mean()) if some else 0.0,
            "loss": unfixed(self.loss) / max(self.total, 1),
            "images": self.total,
        }

    def table(self, names: Sequence[str]) -> list[dict[str, Any]]:
        precision, f1 = self.average_precision().tolist(), self.f1().tolist()
        return [
            {"class": name, "images": count, "ap": f"{precision[i]:.4f}", "f1": f"{f1[i]:.4f}"}
            for i, (name, count) in enumerate(zip(names, self.images.tolist(), strict=True))
            if count
        ]
