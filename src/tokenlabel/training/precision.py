"""`engine.precision=auto` on a CPU: fp32 or bf16, whichever trains faster there."""

from __future__ import annotations

import copy

import torch
from torch import nn

from tokenlabel.models.arithmetic import quicker_arithmetic
from tokenlabel.training.loop import Batches
from tokenlabel.training.ranks import PRECISION_OF, Ranks
from tokenlabel.training.task import Step
from tokenlabel.training.trainer import DeviceBatch, unfuse_attention

__all__ = ["quicker_precision"]

_TO_MIX = 2  # images that a step needs at least


def quicker_precision(task: nn.Module, batches: Batches, ranks: Ranks) -> str:
    """fp32, or bf16 where a pass of `task` forward and backward takes clearly less time in it.

    Tried on a copy of the task, with the first batch. The first rank decides for all.
    """
    batch: DeviceBatch = next(iter(batches.epoch(0, 0)))[0]
    trial = copy.deepcopy(task).to(ranks.device).train()
    fused = unfuse_attention(trial)

    def step(count: int, dtype: torch.dtype) -> None:
        ranks.precision = PRECISION_OF[dtype]
        for module in fused:
            module.fused_attn = dtype == torch.float32  # type: ignore[assignment]
        with ranks.autocast():
            losses = trial(batch.first(count).to(ranks.device), Step(0, 0, 0, 1))
        ranks.backward(losses["loss"])

    chosen: str = ranks.gather(PRECISION_OF[quicker_arithmetic(step, len(batch), fewest=_TO_MIX)])[
        0
    ]
    return chosen
