"""Accuracy over a source of images, on one process or many, with the same counts."""

from __future__ import annotations

from typing import cast

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor

from tokenlabel.data.loader import eval_loader
from tokenlabel.data.source import ImageSource
from tokenlabel.evaluation.benchmarks import Answers
from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.evaluation.metrics import ClassificationCounts, accepted_label
from tokenlabel.progress import progress_bar

__all__ = ["measure"]


@torch.inference_mode()
def measure(
    classifier: Classifier,
    source: ImageSource,
    answers: Answers,
    *,
    batch_size: int = 64,
    workers: int = 0,
    token_weight: float = 0.5,
    processes: PartialState | None = None,
) -> dict[str, ClassificationCounts]:
    """The counts of each prediction rule ("class", "token", "fused"), over all processes.

    Batches are the same however many processes share them, and counts are whole numbers: so the
    results are those of one process, exactly. Every process must call this.
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
    rules = ("class", "token", "fused") if classifier.has_tokens else ("class",)
    counts = {r: ClassificationCounts.zeros(classifier.num_classes, device) for r in rules}
    with progress_bar(visible=processes.is_main_process) as bar:
        task = bar.add_task("evaluating", total=len(source), note="")
        for step, batch in enumerate(loader):
            first = (step * world + rank) * batch_size
            accepted = answers.accepted[first : first + len(batch)].to(device)
            images = batch.images.to(device, non_blocking=True)
            for rule, scores in classifier.scores(images, token_weight).items():
                _count(counts[rule], answers.restrict(scores), accepted)
            bar.advance(task, min(batch_size * world, len(source) - first))
    return {rule: _summed(count) for rule, count in counts.items()}


def _count(counts: ClassificationCounts, scores: Tensor, accepted: Tensor) -> None:
    """Images without any accepted answer are not judged."""
    judged = (accepted >= 0).any(1)
    counts.update(scores, accepted_label(scores, accepted), judged)


def _summed(counts: ClassificationCounts) -> ClassificationCounts:
    """The sum over all processes, on the CPU of each."""
    return ClassificationCounts(
        *(cast(Tensor, reduce(tensor, reduction="sum")).cpu() for tensor in counts.tensors())
    )
