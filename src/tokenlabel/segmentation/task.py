"""What segmentation trains: pixel-wise cross-entropy of both heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.data.inputs import Normalize
from tokenlabel.segmentation.classes import IGNORED
from tokenlabel.segmentation.dataset import PairBatch
from tokenlabel.segmentation.model import SegmentationModel

__all__ = ["SegmentationTask", "class_weights"]


class SegmentationTask(nn.Module):
    """Losses of a `SegmentationModel` on batches of uint8 images and labels.

    `mean` and `std` normalize pixels in [0, 1]; `class_weights` [C] weigh pixels by their class.
    Losses are means over all pixels, where one without label counts as zero, as in mmsegmentation:
    so the mean over equal parts of a batch is the mean over the batch.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        student: SegmentationModel,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        auxiliary_weight: float = 0.4,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.auxiliary_weight = auxiliary_weight
        self.normalize = Normalize(mean, std)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, batch: PairBatch, _step: object = None) -> dict[str, Tensor]:
        """The named losses of a batch: their weighted sum "loss", and each head's own."""
        output = self.student.forward_heads(self.normalize(batch.images))
        labels = batch.labels.long()
        terms = {
            "decode": self._cross_entropy(output.logits, labels),
            "auxiliary": self._cross_entropy(output.auxiliary, labels),
        }
        return {"loss": terms["decode"] + self.auxiliary_weight * terms["auxiliary"], **terms}

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(
            logits.float(), labels, self.class_weights, ignore_index=IGNORED, reduction="sum"
        )
        return loss / labels.numel()


def class_weights(counts: Tensor, power: float) -> Tensor:
    """Weights [C] from pixel counts [C]: frequency to the power -`power`, 1 on a mean pixel.

    0 weighs all classes alike and 1 gives every class the same total weight; classes that have no
    pixel get weight 0.
    """
    share = counts.double() / counts.sum()
    weights = torch.where(counts > 0, share.clamp(min=1e-12) ** -power, 0.0)
    return (weights / (weights * share).sum()).float()
