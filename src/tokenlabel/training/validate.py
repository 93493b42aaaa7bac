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

    A student with token supervision predicts by both heads fused, any other by its class token. Of
    the former, `class_top1` and `token_top1` tell what each head is worth alone.
    """
    headline, *others = task.supervision.rules
    counts = {
        rule: ClassificationCounts.zeros(task.num_classes, ranks.device)
        for rule in (headline, *others)
    }
    model.eval()
    for batch in batches:
        with ranks.autocast():
            output = model(task.normalize(batch.images.to(ranks.device, non_blocking=True)))
        labels = batch.labels.to(ranks.device, non_blocking=True)
        scores = predictions(output)
        for rule, count in counts.items():
            count.update(scores[rule].float(), labels)
    summaries = {
        rule: ClassificationCounts(*(ranks.sum(t.cpu()) for t in count.tensors())).summary()
        for rule, count in counts.items()
    }
    measures = {name: summaries[headline][name] for name in ("top1", "top5", "loss")}
    return measures | {f"{rule}_top1": summaries[rule]["top1"] for rule in others}
