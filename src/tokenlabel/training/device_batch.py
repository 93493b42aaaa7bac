"""How many images a GPU takes at once: by trying, with half as many each time that memory runs out."""

from __future__ import annotations

import torch
from torch import nn

from tokenlabel.errors import InputError
from tokenlabel.progress import console
from tokenlabel.training.loop import Batches
from tokenlabel.training.ranks import Ranks
from tokenlabel.training.task import Step
from tokenlabel.training.trainer import DeviceBatch, checkpoint_activations

__all__ = ["fitting_batch"]

_COPIES = 3  # of the weights: two moments of the optimizer, and the average


def fitting_batch(task: nn.Module, batches: Batches, ranks: Ranks) -> int:
    """The most images of a batch, halved as often as needed, that a pass of `task` has memory for.

    The smallest of all ranks; the task is left as it was, on the device. Raises InputError where not
    even two images fit.
    """
    batch: DeviceBatch = next(iter(batches.epoch(0, 0)))[0]
    task.to(ranks.device).train()
    if ranks.engine.activation_checkpointing:
        checkpoint_activations(task)
    buffers = {name: buffer.clone() for name, buffer in task.named_buffers()}
    whole = count = len(batch)
    while not _fits(task, batch.first(count), ranks):
        if count <= 2:
            count = 0
            break
        count = max(count // 2, 2)
    for name, buffer in task.named_buffers():
        buffer.copy_(buffers[name])
    fitting = -int(ranks.max(torch.tensor([-count]))[0])
    if not fitting:
        raise InputError(
            "the GPU's memory does not hold two images of this model: use a smaller image size or"
            " model, or engine.activation_checkpointing=true"
        )
    if fitting < whole and ranks.first:
        console.print(f"device batch: {fitting} images at once, for {whole} do not fit")
    return fitting


def _fits(task: nn.Module, batch: DeviceBatch, ranks: Ranks) -> bool:
    """Whether there is memory for two passes beside what the optimizer will hold."""
    size = sum(p.numel() * p.element_size() for p in task.parameters())
    reserved: torch.Tensor | None = None
    try:
        reserved = torch.empty(_COPIES * size, dtype=torch.uint8, device=ranks.device)
        for _ in range(2):
            with ranks.autocast():
                losses = task(batch.to(ranks.device), Step(0, 0, 0, 1))
            ranks.backward(losses["loss"])
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        del reserved
        task.zero_grad(set_to_none=True)
        if ranks.device.type == "cuda":
            torch.cuda.empty_cache()
