"""Which arithmetic a network computes in: on a CPU found by trying, never by the CPU's name.

bfloat16 is some five times as fast where a CPU has units for it, and nine times as slow elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from tokenlabel.choices import Arithmetic
from tokenlabel.progress import console, first_process
from tokenlabel.threads import one_thread

__all__ = [
    "autocast",
    "chosen_arithmetic",
    "name_of",
    "native_arithmetic",
    "quicker_arithmetic",
]

Step = Callable[[int, torch.dtype], object]
"""Computes one batch of so many images in an arithmetic."""

_FEWEST = 100  # images for which speed counts: a trial on fewer would take longer than it saves
_SECONDS = 0.3  # at most so long is a pass in float32: of a part of the batch, if need be
_GAIN = 1.2  # bfloat16 must be so much quicker: a tie must not fall one way today, another tomorrow
_HOPELESS = 4.0  # so much slower with few images, bfloat16 is not tried with more
_SIDE = 512  # of a matrix whose product tells whether the CPU has units for bfloat16
_PASSES = 3  # of which the quickest counts


def native_arithmetic(device: torch.device) -> torch.dtype:
    """The quickest that needs no trial: bfloat16 on GPUs that have it, float16 on older ones.

    float32 elsewhere, for CPUs differ.
    """
    if device.type != "cuda":
        return torch.float32
    half = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if half else torch.float16


def chosen_arithmetic(
    wanted: Arithmetic, device: torch.device, step: Step, *, batch: int, images: int
) -> torch.dtype:
    """What a network computes `images` images in, of which `step` takes up to `batch` at a time.

    "auto" is float32 for few images, else the native arithmetic of a GPU and the quicker one of a CPU.
    """
    if wanted != "auto":
        found: torch.dtype = getattr(torch, wanted)
        return found
    if images < _FEWEST:
        return torch.float32
    if device.type != "cpu":
        return native_arithmetic(device)
    with torch.inference_mode():
        return quicker_arithmetic(step, min(batch, images))


def quicker_arithmetic(step: Step, images: int, *, fewest: int = 1) -> torch.dtype:
    """float32, or bfloat16 where `step` takes clearly less processor time in it; one line says so.

    What counts is processor time on one thread, which other programs of a busy machine do not lengthen:
    threads that wait for each other would. Tried with a matrix product first, then with as many of the
    `images` as keep the trial short, but at least `fewest`.
    """
    what = "a matrix product"
    with one_thread():
        single, half = _quickest(_product, _SIDE)
        if half < single:
            count = min(fewest, images)
            step(count, torch.float32)
            begun = time.perf_counter()
            single = _seconds(step, count, torch.float32)
            affordable = int(count * _SECONDS / (time.perf_counter() - begun))
            half = _seconds(step, count, torch.bfloat16)
            if half < _HOPELESS * single:
                count = max(count, min(images, affordable))
                single, half = _quickest(step, count)
            what = "1 image" if count == 1 else f"{count} images"
    chosen = torch.bfloat16 if half * _GAIN < single else torch.float32
    if first_process():
        console.print(
            f"precision: {name_of(chosen)} ({what} took {1000 * single:.3g} ms of processor time in"
            f" float32, {1000 * half:.3g} ms in bfloat16)",
            soft_wrap=True,
        )
    return chosen


def name_of(dtype: torch.dtype) -> str:
    """As options and files call it: float32."""
    return str(dtype).removeprefix("torch.")


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Around what a network computes; nothing where that is float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def _product(side: int, dtype: torch.dtype) -> None:
    matrix = torch.ones(side, side, dtype=dtype)
    matrix @ matrix


def _quickest(step: Step, count: int) -> tuple[float, float]:
    """Seconds in float32 and in bfloat16."""
    single, half = (
        min(_seconds(step, count, dtype) for _ in range(_PASSES))
        for dtype in (torch.float32, torch.bfloat16)
    )
    return single, half


def _seconds(step: Step, count: int, dtype: torch.dtype) -> float:
    """Processor time of all threads."""
    begun = time.process_time()
    step(count, dtype)
    return time.process_time() - begun
