"""Accuracy of a student on held-out images, counted over all ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tokenlabel.data.batch import Batch
from tokenlabel.evaluation.evaluator import Judged, evaluate_classifier
from tokenlabel.evaluation.neighbors import knn_accuracy
from tokenlabel.output import DenseOutput
from tokenlabel.supervision import Rule, better_rule
from tokenlabel.training.ranks import Ranks
from tokenlabel.training.task import TokenLabelingTask

__all__ = ["validate", "validate_features"]


def validate(
    model: nn.Module, task: TokenLabelingTask, batches: Iterable[Batch], ranks: Ranks
) -> dict[str, float]:
    """Top-1 and top-5 accuracy in [0, 1] and mean loss of one model; `batches` are this rank's.
    Where images may have several classes, mean average precision, F1 and loss.

    Where the student may predict by several rules, these are of the better of class token and fused,
    and "class_top1", "token_top1" and "fused_top1" are the accuracies of each.
    """

    def predict(images: Tensor) -> DenseOutput:
        with ranks.autocast():
            output: DenseOutput = model(task.normalize(images))
        return output

    model.eval()
    counts = evaluate_classifier(
        predict,
        (Judged(batch.images, batch.accepted) for batch in batches),
        task.rules,
        num_classes=task.num_classes,
        device=ranks.device,
        total=lambda tensor: ranks.sum(tensor.cpu()),
        multi_label=task.multi_label,
    )
    summaries = {rule: count.summary() for rule, count in counts.items()}
    each: dict[Rule, float] = {}
    if len(task.rules) > 1:
        each = {rule: summary["top1"] for rule, summary in summaries.items()}
    headline = better_rule(task.rules, each) if each else task.rules[0]
    measures = {name: summaries[headline][name] for name in counts[headline].measures}
    return measures | {f"{rule}_top1": top1 for rule, top1 in each.items()}


@torch.no_grad()
def validate_features(
    model: nn.Module, task: TokenLabelingTask, batches: Iterable[Batch], ranks: Ranks
) -> dict[str, float]:
    """ "knn": how well the features of a student without classes tell the validation images' apart.

    An image's features are the mean of its tokens' before the token head; see `knn_accuracy`.
    """
    student: Any = model
    model.eval()
    found: list[tuple[str, int, Tensor]] = []
    for batch in batches:
        images = batch.images.to(ranks.device, non_blocking=True)
        with ranks.autocast():
            _, tokens = student.forward_tokens(task.normalize(images))
        features = tokens.float().mean((1, 2)).cpu()
        found += zip(batch.keys, batch.labels.tolist(), features, strict=True)
    everyone = sorted((item for part in ranks.gather(found) for item in part), key=lambda i: i[0])
    features = torch.stack([item[2] for item in everyone])
    return {"knn": knn_accuracy(features, torch.tensor([item[1] for item in everyone]))}
