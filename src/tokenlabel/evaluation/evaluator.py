"""The one evaluator: accuracy by summed counts, for validation in training and for `eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor

from tokenlabel.data.loader import eval_loader
from tokenlabel.data.source import ImageSource
from tokenlabel.evaluation.benchmarks import Answers
from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.evaluation.metrics import ClassificationCounts, Counts, prediction
from tokenlabel.evaluation.multi_label import MultiLabelCounts
from tokenlabel.output import TOKEN_SHARE, DenseOutput
from tokenlabel.progress import progress_bar
from tokenlabel.supervision import Rule

__all__ = ["Judged", "evaluate_classifier", "evaluate_source"]


class Judged(NamedTuple):
    """Images with the classes that count as right."""

    images: Tensor  # uint8 [B, 3, H, W]
    accepted: Tensor  # [B, M] int64, padded with -1; an image without any is not judged


@torch.no_grad()
def evaluate_classifier(
    predict: Callable[[Tensor], DenseOutput],
    batches: Iterable[Judged],
    rules: Sequence[Rule],
    *,
    num_classes: int,
    device: torch.device,
    total: Callable[[Tensor], Tensor],
    token_weight: float = TOKEN_SHARE,
    restrict: Callable[[Tensor], Tensor] = lambda scores: scores,
    multi_label: bool = False,
) -> dict[Rule, Counts]:
    """The counts of each rule of prediction over all processes, in the order of `rules`.

    `predict` maps uint8 images on `device` to scores; `batches` are this process's, and `total` sums
    a tensor over all processes (each must call this). Counts are whole numbers: however many
    processes share the batches, the sums are the same. `restrict` rules out classes of scores [B, C].
    `multi_label`: an image has all of its accepted classes, not one of them.
    """
    kind: type[Counts] = MultiLabelCounts if multi_label else ClassificationCounts
    counts = {rule: kind.zeros(num_classes, device) for rule in rules}
    for batch in batches:
        output = predict(batch.images.to(device, non_blocking=True))
        accepted = batch.accepted.to(device, non_blocking=True)
        for rule, count in counts.items():
            scores = restrict(prediction(output, rule, token_weight).float())
            count.judge(scores, accepted)
    return {
        rule: kind(*(total(tensor) for tensor in count.tensors())) for rule, count in counts.items()
    }


def evaluate_source(
    classifier: Classifier,
    source: ImageSource,
    answers: Answers,
    *,
    batch_size: int = 64,
    workers: int = 0,
    token_weight: float = TOKEN_SHARE,
    processes: PartialState | None = None,
) -> dict[Rule, Counts]:
    """The counts of every rule that the classifier has, over all images and processes.

    Batches are the same however many processes share them. Every process must call this.
    """
    processes = processes or PartialState(cpu=not torch.accelerator.is_available())
    rank, world, device = processes.process_index, processes.num_processes, processes.device
    loader = eval_loader(
        source,
        classifier.preprocessing,
        batch_size=batch_size,
        workers=workers,
        rank=rank,
        world=world,
        pin_memory=device.type == "cuda",
    )
    classifier.model.to(device)

    def batches() -> Iterator[Judged]:
        with progress_bar(visible=processes.is_main_process) as bar:
            task = bar.add_task("evaluating", total=len(source), note="")
            for step, batch in enumerate(loader):
                first = (step * world + rank) * batch_size
                yield Judged(batch.images, answers.accepted[first : first + len(batch)])
                bar.advance(task, min(batch_size * world, len(source) - first))

    return evaluate_classifier(
        classifier.output,
        batches(),
        classifier.rules,
        num_classes=classifier.num_classes,
        device=device,
        total=lambda tensor: cast(Tensor, reduce(tensor, reduction="sum")).cpu(),
        token_weight=token_weight,
        restrict=answers.restrict,
        multi_label=classifier.multi_label,
    )
