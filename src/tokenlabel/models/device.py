"""The device that a network runs on."""

from __future__ import annotations

import os

import torch

from tokenlabel.errors import InputError
from tokenlabel.models.allocator import keep_freed_memory

__all__ = ["resolve_device"]


def resolve_device(device: str) -> torch.device:
    """The device of a user's word, which may be "auto".

    Under torchrun, each rank takes the accelerator of its local rank. A process that runs networks on
    the CPU keeps the memory that they free.
    """
    if device == "auto":
        kind = torch.accelerator.current_accelerator(check_available=True)
        device = kind.type if kind is not None else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError:
        raise InputError(
            f"no such device: {device!r}; use cpu, cuda, cuda:1, mps or auto"
        ) from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device!r} is not available on this machine: use cpu or auto")
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if place.type == "cpu":
        keep_freed_memory()
    return place
