"""`Mix`: which part of each image of a batch is exchanged or blended with a partner's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Mix"]


@dataclass(frozen=True)
class Mix:
    """The mixing of one training step, on the student's token grid.

    Partners are paired both ways (`partner[partner[i]] == i`; the middle image of an odd batch is its
    own) and share one box, so exchanging a second time undoes the exchange: un-mixing *is* mixing.

    - `share` bool: tokens where it is true are exchanged with the partner (MixToken, paper section
      3.2, at level "embedding"; CutMix on patch borders at level "pixels").
    - `share` float: every token is blended, `(1 - share) * own + share * partner's` (mixup).
    """

    partner: Tensor  # [B] int64, an involution
    share: Tensor  # [B or 1, h, w], bool or float in [0, 1]: the partner's share of each token
    level: Literal["embedding", "pixels"] = "embedding"

    @property
    def exchanges(self) -> bool:
        """Whether tokens move whole, so that un-mixing recovers each image's own."""
        return self.share.dtype == torch.bool

    @property
    def lam(self) -> Tensor:
        """Each image's own share of its mixed self: [B] float in [0, 1].

        1 for an image that is its own partner: nothing of another is in it.
        """
        own = 1 - self.share.float().mean((1, 2))
        alone = self.partner == torch.arange(len(self.partner), device=self.partner.device)
        return torch.where(alone, 1.0, own)

    def share_on(self, height: int, width: int) -> Tensor:
        """`share` on a finer (or coarser) grid: [B or 1, height, width], by nearest token."""
        h, w = self.share.shape[1:]
        if (h, w) == (height, width):
            return self.share
        rows = torch.arange(height, device=self.share.device) * h // height
        cols = torch.arange(width, device=self.share.device) * w // width
        return self.share[:, rows][:, :, cols]

    def __call__(self, x: Tensor, *, channels_last: bool) -> Tensor:
        """Mix a batch of maps: [B, H, W, D] if `channels_last`, else [B, D, H, W]."""
        height, width = x.shape[1:3] if channels_last else x.shape[2:4]
        share = self.share_on(height, width).unsqueeze(3 if channels_last else 1)
        other = x[self.partner]
        if self.exchanges:
            return torch.where(share, other, x)
        return torch.lerp(x, other, share.to(x.dtype).expand_as(x))

    def to(self, device: torch.device | str) -> Mix:
        return Mix(self.partner.to(device), self.share.to(device), self.level)

    # -- drawing ---------------------------------------------------------------------------------

    @classmethod
    def draw(
        cls,
        batch: int,
        grid: tuple[int, int],
        *,
        kind: Literal["mixtoken", "cutmix", "mixup"] = "mixtoken",
        alpha: float = 1.0,
        per_sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> Mix:
        """Draw a step's mix: lambda ~ Beta(alpha, alpha), a box of area 1 - lambda anywhere.

        One box serves the whole batch, or each pair has its own (`per_sample`). Boxes lie on token
        borders; their center is uniform and the part outside the grid is cut off, as in CutMix.
        Partners are neighbors (the last of an odd batch is its own), so that slices of even size
        of a batch mix among themselves as they do within it.
        """
        if alpha <= 0:
            raise ValueError(f"alpha must be positive, got {alpha}")
        partner = (torch.arange(batch) ^ 1).clamp(max=batch - 1)
        draws = (batch + 1) // 2 if per_sample else 1
        own = _beta(alpha, draws, generator)
        if kind == "mixup":
            share = (1 - own)[:, None, None].expand(draws, *grid)
        else:
            share = torch.stack([_draw_box(grid, float(lam), generator) for lam in own])
        if per_sample:
            share = share.repeat_interleave(2, 0)[:batch]
        return cls(partner, share.contiguous(), "embedding" if kind == "mixtoken" else "pixels")


def _beta(alpha: float, count: int, generator: torch.Generator | None) -> Tensor:
    """Beta(alpha, alpha) samples [count] from an explicit generator (torch's own takes none)."""
    gammas = torch._standard_gamma(torch.full((count, 2), alpha), generator=generator)
    return gammas[:, 0] / gammas.sum(1).clamp(min=1e-30)


def _draw_box(grid: tuple[int, int], lam: float, generator: torch.Generator | None) -> Tensor:
    """A boolean grid [h, w], true inside a box of about (1 - lam) of its area."""
    side = math.sqrt(1 - lam)
    mask = torch.zeros(grid, dtype=torch.bool)
    spans = []
    for cells in grid:
        center = int(torch.randint(cells, (), generator=generator))
        half = int(cells * side) // 2
        spans.append(slice(max(center - half, 0), min(center + half, cells)))
    mask[spans[0], spans[1]] = True
    return mask
