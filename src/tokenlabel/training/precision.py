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
from tokenlabel.training.trainer import DeviceBatch, unfuse_attention

__all__ = ["quicker_precision"]

_SECONDS = 0.3  # at most so long is a pass in single precision: of a part of the batch, if need be
_GAIN = 1.5  # bf16 must be so much quicker: a tie must not fall one way today and another tomorrow
_PASSES = 3  # of which the quickest counts


def quicker_precision(task: nn.Module, batches: Batches, ranks: Ranks) -> str:
    """fp32, or bf16 where a pass of `task` forward and backward takes clearly less of it.

    What counts is processor time, which other programs of a busy machine do not lengthen. Tried on a
    copy of the task, and on as many images of the first batch as keep the trial short. The first
    rank decides for all.
    """
    batch: DeviceBatch = next(iter(batches.epoch(0, 0)))[0]
    trial = copy.deepcopy(task).to(ranks.device).train()
    few = batch.first(min(2, len(batch)))
    _pass(trial, few, ranks, "fp32")
    begun = time.perf_counter()
    _pass(trial, few, ranks, "fp32")
    affordable = len(few) * _SECONDS / (time.perf_counter() - begun)
    part = batch.first(max(len(few), min(len(batch), int(affordable))))
    single = min(_pass(trial, part, ranks, "fp32") for _ in range(_PASSES))
    unfuse_attention(trial)
    half = _pass(trial, part, ranks, "bf16")
    if half < 2 * single:  # else it will not catch up
        half = min(half, *(_pass(trial, part, ranks, "bf16") for _ in range(_PASSES - 1)))
    chosen: str = ranks.gather("bf16" if half * _GAIN < single else "fp32")[0]
    if ranks.first:
        console.print(
            f"precision: {chosen} ({len(part)} images take {single:.2f} s of processor time in fp32,"
            f" {half:.2f} s in bf16)",
            soft_wrap=True,
        )
    return chosen


def _pass(task: nn.Module, batch: DeviceBatch, ranks: Ranks, precision: str) -> float:
    """Seconds of processor time, of all threads, for one pass forward and backward."""
    ranks.precision = precision
    begun = time.process_time()
    with ranks.autocast():
        losses = task(batch.to(ranks.device), Step(0, 0, 0, 1))
    ranks.backward(losses["loss"])
    return time.process_time() - begun
