"""`Batch`: what a loader yields and a training step takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenlabel.targets import TokenTarget

__all__ = ["Batch", "normalize"]


@dataclass(frozen=True)
class Batch:
    """Images as bytes (normalise them on the device) with their class and token targets."""

    images: Tensor  # [B, 3, H, W] uint8, channels last in memory
    labels: Tensor  # [B] int64
    target: TokenTarget | None
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return Batch(
            self.images.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
            self.target and self.target.to(device, non_blocking),
            self.keys,
        )

    def pin_memory(self) -> Batch:
        return Batch(
            self.images.pin_memory(),
            self.labels.pin_memory(),
            self.target and self.target.pin_memory(),
            self.keys,
        )


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Float images, `(images / 255 - mean) / std` by channel, of uint8 ones [B, 3, H, W]."""
    scale = 1 / (255 * torch.tensor(std, device=images.device))
    shift = torch.tensor(mean, device=images.device) / torch.tensor(std, device=images.device)
    return images * scale[:, None, None] - shift[:, None, None]
