"""Why a gradient is not finite: which layer was first, on which images."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tokenlabel.files import replacing, write_atomically, write_tensors
from tokenlabel.training.task import Step
from tokenlabel.training.trainer import Trainer

__all__ = ["NO_CAUSE", "culprits", "keep_batch"]

NO_CAUSE = "losses and outputs are finite, only the gradient is not"


def culprits(trainer: Trainer, batches: Sequence[Any], epoch: int) -> str | None:
    """What was not finite first in the forward passes of the last update, which was skipped.

    The passes are made again, with the same weights and random numbers. Every rank calls this with
    its own batches. None where all is finite.
    """
    task: nn.Module = getattr(trainer.task, "module", trainer.task)
    task.train()  # also after a validation
    ranks, parts = trainer.ranks, trainer.ranks.count * len(batches)
    found: list[str] = []
    with ExitStack() as ends, torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for handle in _watched(trainer.student, found):
            ends.callback(handle.remove)
        for index, batch in enumerate(batches):
            part = index * ranks.count + ranks.rank
            losses = trainer.losses(task, batch, Step(trainer.updates - 1, epoch, part, parts))
            found += [
                f"the loss {name!r} was not, though the output of every layer was"
                for name, loss in losses.items()
                if not loss.isfinite()
            ]
    return found[0] if found else None


def _watched(student: nn.Module, found: list[str]) -> Iterator[RemovableHandle]:
    """Have layers write down that their output is not finite; the first to end is the innermost."""

    def look(name: str, kind: str, output: Any) -> None:
        tensors = output if isinstance(output, (tuple, list)) else [output]
        for tensor in tensors:
            if isinstance(tensor, Tensor) and not tensor.isfinite().all():
                found.append(f"first the output of {name} ({kind}) was not")
                return

    for name, module in student.named_modules():
        yield module.register_forward_hook(
            lambda layer, _input, output, name=name: look(
                name or "the model", type(layer).__name__, output
            )
        )


def keep_batch(
    folder: Path, rank: int, update: int, batches: Sequence[Any], cause: str | None
) -> Path:
    """Write a rank's batches of an update: tensors, and keys in a JSON file of the same name.

    Returns the JSON file.
    """
    tensors = {
        f"{index}.{name}": tensor.detach().cpu()
        for index, batch in enumerate(batches)
        for name, tensor in _tensors(batch)
    }
    file = folder / f"bad-batch-rank{rank}.json"
    with replacing(file.with_suffix(".safetensors")) as aside:
        write_tensors(aside, tensors)
    keys = [key for batch in batches for key in batch.keys]
    content = {"update": update, "cause": cause or NO_CAUSE, "keys": keys}
    write_atomically(file, json.dumps(content, indent=1))
    return file


def _tensors(batch: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            yield f"{prefix}{field.name}", value
        elif dataclasses.is_dataclass(value):
            yield from _tensors(value, f"{prefix}{field.name}.")
