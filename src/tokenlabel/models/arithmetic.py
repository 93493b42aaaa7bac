"""Which arithmetic a device has units for."""

from __future__ import annotations

import torch

__all__ = ["native_arithmetic"]


def native_arithmetic(device: torch.device) -> torch.dtype:
    """The quickest that needs no trial: bfloat16 on GPUs that have it, float16 on older ones.

    float32 elsewhere, for CPUs differ: training tries which is quicker there.
    """
    if device.type != "cuda":
        return torch.float32
    half = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if half else torch.float16
