"""What segmentation trains: pixel-wise cross-entropy of both heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.data.inputs import Normalize
from tokenlabel.segmentation.classes import IGNORED
from tokenlabel.segmentation.dataset import PairBatch
from tokenlabel.segmentation.model import SegmentationModel, SegmentationOutput

__all__ = ["SegmentationTask", "class_weights"]


class SegmentationTask(nn.Module):
    """Losses of a `SegmentationModel` on batches of uint8 images, or their features, and labels.

    `mean` and `std` normalize pixels in [0, 1]; `class_weights` [C] weigh pixels by their class.
    Every pixel of a cell with a soft label has that label, and counts `soft_weight`. Losses are means
    over all pixels, where one without label counts as zero, as in mmsegmentation: so the mean over
    equal parts of a batch is the mean over the batch.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        student: SegmentationModel,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        auxiliary_weight: float = 0.4,
        soft_weight: float = 1.0,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.auxiliary_weight = auxiliary_weight
        self.soft_weight = soft_weight
        self.normalize = Normalize(mean, std)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, batch: PairBatch, _step: object = None) -> dict[str, Tensor]:
        """The named losses of a batch: their weighted sum "loss", and each head's own."""
        output = self._heads(batch)
        loss = decode = self._cross_entropy(output.logits, batch)
        if output.auxiliary is None:
            return {"loss": loss, "decode": decode}
        auxiliary = self._cross_entropy(output.auxiliary, batch)
        loss = decode + self.auxiliary_weight * auxiliary
        return {"loss": loss, "decode": decode, "auxiliary": auxiliary}

    @torch.no_grad()
    def features(self, images: Tensor) -> list[Tensor]:
        """A frozen backbone's maps of images [B, C, H, W] from 0 to 255."""
        device = next(self.student.parameters()).device
        return self.student.features(self.normalize(images.to(device)))

    def _heads(self, batch: PairBatch) -> SegmentationOutput:
        if not batch.features:
            return self.student.forward_heads(self.normalize(batch.images))
        features = [x.float() for x in batch.features]
        return self.student.heads_on(features, (batch.labels.shape[1], batch.labels.shape[2]))

    def _cross_entropy(self, logits: Tensor, batch: PairBatch) -> Tensor:
        labels = batch.labels.long()
        log_q = logits.float().log_softmax(1)
        loss = F.nll_loss(log_q, labels, self.class_weights, ignore_index=IGNORED, reduction="sum")
        if batch.soft is not None:
            target = batch.soft.to(log_q)
            if self.class_weights is not None:
                target = target * self.class_weights[:, None, None]
            by_cell = F.adaptive_avg_pool2d(log_q, (target.shape[2], target.shape[3]))
            pixels = labels.numel() / target[:, 0].numel()  # in a cell
            loss = loss - self.soft_weight * pixels * (target * by_cell).sum()
        return loss / labels.numel()


def class_weights(counts: Tensor, power: float) -> Tensor:
    """Weights [C] from pixel counts [C]: frequency to the power -`power`, 1 on a mean pixel.

    0 weighs all classes alike and 1 gives every class the same total weight; classes that have no
    pixel get weight 0.
    """
    share = counts.double() / counts.sum()
    weights = torch.where(counts > 0, share.clamp(min=1e-12) ** -power, 0.0)
    return (weights / (weights * share).sum()).float()
