"""Accuracy of a student on held-out images, counted over all ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from tokenlabel.evaluation.metrics import ClassificationCounts, predictions
from tokenlabel.training.ranks import Ranks
from tokenlabel.training.task import TokenLabelingTask

__all__ = ["validate"]


@torch.no_grad()
def validate(
    model: nn.Module, task: TokenLabelingTask, batches: Iterable[Any], ranks: Ranks
) -> dict[str, float]:
    """Top-1 and top-5 accuracy in [0, 1] and mean loss of one model; `batches` are this rank's.

    A student with token supervision predicts by both heads fused, any other by its class token.
    """
    rule = "fused" if task.supervision.kind == "token-labels" else "class"
    counts = ClassificationCounts.zeros(task.num_classes, ranks.device)
    model.eval()
    for batch in batches:
        with ranks.autocast():
            output = model(task.normalize(batch.images.to(ranks.device, non_blocking=True)))
        labels = batch.labels.to(ranks.device, non_blocking=True)
        counts.update(predictions(output)[rule].float(), labels)
    merged = ClassificationCounts(*(ranks.sum(tensor.cpu()) for tensor in counts.tensors()))
    summary = merged.summary()
    return {name: summary[name] for name in ("top1", "top5", "loss")}
