"""Which arithmetic is quicker on this CPU: by trying, never by its name.

bfloat16 is some five times as fast where a CPU has units for it, and nine times as slow elsewhere.
"""

from __future__ import annotations

import copy
import time

from torch import nn

from tokenlabel.progress import console
from tokenlabel.training.loop import Batches
from tokenlabel.training.ranks import Ranks
from tokenlabel.training.task import Step
from tokenlabel.training.trainer import unfuse_attention

__all__ = ["quicker_precision"]

_CHOICES = ("fp32", "bf16")


def quicker_precision(task: nn.Module, batches: Batches, ranks: Ranks) -> str:
    """The quicker of fp32 and bf16, by the second of two passes of `task` on one batch with each.

    The task is left as it was. The first rank decides for all.
    """
    batch = next(iter(batches.epoch(0, 0)))[0]
    trial = copy.deepcopy(task).to(ranks.device).train()
    seconds = {}
    for precision in _CHOICES:
        ranks.precision = precision
        if precision != "fp32":
            unfuse_attention(trial)
        for _ in range(2):
            begun = time.perf_counter()
            with ranks.autocast():
                losses = trial(batch.to(ranks.device), Step(0, 0, 0, 1))
            ranks.backward(losses["loss"])
            seconds[precision] = time.perf_counter() - begun
    chosen: str = ranks.gather(min(_CHOICES, key=seconds.__getitem__))[0]
    if ranks.first:
        figures = ", ".join(f"{name} {seconds[name]:.2f} s a pass" for name in _CHOICES)
        console.print(f"engine.precision=auto: {chosen} ({figures})", soft_wrap=True)
    return chosen
