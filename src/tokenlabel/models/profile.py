"""What a student costs: parameters, arithmetic, and speed on the machine at hand."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from timm.layers import to_2tuple
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tokenlabel.models.dense import DenseModel
from tokenlabel.models.layout import on_meta

__all__ = ["Profile", "measure_throughput", "profile"]


@dataclass(frozen=True)
class Profile:
    """A student's size; `flops` of one image counts a multiply-add as two operations."""

    image_size: tuple[int, int]  # (height, width)
    grid: tuple[int, int]
    parameters: int
    flops: int


def profile(model: DenseModel, image_size: int | tuple[int, int] | None = None) -> Profile:
    """Count, without computing anything, for images of `image_size` (None: the nominal size)."""
    size = to_2tuple(image_size or model.image_shape[1:])
    shapes = on_meta(model).eval()
    images = torch.empty(1, model.image_shape[0], *size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes(images)
    parameters = sum(p.numel() for p in model.parameters())
    return Profile(size, model.grid(size), parameters, counter.get_total_flops())


def measure_throughput(
    model: nn.Module, images: torch.Tensor, *, seconds: float = 2.0, warmup: int = 2
) -> float:
    """Images a second of plain inference, on the device where `model` and `images` are."""
    on_gpu = images.device.type == "cuda"
    model.eval()
    count = 0
    with torch.inference_mode():
        for _ in range(warmup):
            model(images)
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        while True:
            model(images)
            if on_gpu:
                torch.cuda.synchronize()
            count += len(images)
            elapsed = time.perf_counter() - start
            if elapsed >= seconds:
                return count / elapsed
