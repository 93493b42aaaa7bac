"""`Batch`: what a loader yields and a training step takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenlabel.targets import TokenTarget

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """Images before they are normalized (on the device), with their class and token targets."""

    images: Tensor
    """[B, C, H, W] from 0 to 255, channels last in memory: uint8, or float32 of images of more than
    8 bits."""
    labels: Tensor
    """[B] int64; of images that may have several classes [B, M], padded with -1."""
    target: TokenTarget | None
    keys: tuple[str, ...]
    clean: Tensor | None = None
    """The same views without color operations and erasing, as `images`: what an annotator sees."""
    more: tuple[TokenTarget, ...] = ()
    """Token targets of further annotators."""

    @property
    def accepted(self) -> Tensor:
        """The classes of each image, [B, M] int64 padded with -1."""
        return self.labels[:, None] if self.labels.ndim == 1 else self.labels

    def __len__(self) -> int:
        return self.images.shape[0]

    def first(self, count: int) -> Batch:
        """The first `count` samples."""
        return Batch(
            self.images[:count],
            self.labels[:count],
            self.target and self.target.first(count),
            self.keys[:count],
            None if self.clean is None else self.clean[:count],
            tuple(target.first(count) for target in self.more),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return Batch(
            self.images.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
            self.target and self.target.to(device, non_blocking),
            self.keys,
            None if self.clean is None else self.clean.to(device, non_blocking=non_blocking),
            tuple(target.to(device, non_blocking) for target in self.more),
        )

    def pin_memory(self) -> Batch:
        return Batch(
            self.images.pin_memory(),
            self.labels.pin_memory(),
            self.target and self.target.pin_memory(),
            self.keys,
            None if self.clean is None else self.clean.pin_memory(),
            tuple(target.pin_memory() for target in self.more),
        )
