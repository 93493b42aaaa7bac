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
from tokenlabel.training.ranks import Ranks
from tokenlabel.training.task import TokenLabelingTask

__all__ = ["validate", "validate_features"]


def validate(
    model: nn.Module, task: TokenLabelingTask, batches: Iterable[Batch], ranks: Ranks
) -> dict[str, float]:
    """Top-1 and top-5 accuracy in [0, 1] and mean loss of one model; `batches` are this rank's.
    Where images may have several classes, mean average precision, F1 and loss.

    The student predicts by its method's own rule. Where the method has further ones, their accuracy
    is measured too: `class_top1` and `token_top1` are those of each head alone.
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
    headline, *others = task.rules
    summary = counts[headline].summary()
    measures = {name: summary[name] for name in counts[headline].measures}
    return measures | {f"{rule}_top1": counts[rule].summary()["top1"] for rule in others}


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
