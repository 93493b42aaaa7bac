"""Spherical k-means: unit vectors in groups of small angles (Dhillon and Modha 2001)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["spherical_kmeans"]

# the share of the rows that each round looks at: most of the way is made on few of them
_ROUNDS = (0.125,) * 8 + (0.5,) * 4 + (1.0,) * 2
_FEW = 0.1  # rows of a center, as a share of the mean, below which it is moved
_STEP = 0.25  # towards a row, of a center that takes part of another one's
_ROWS_A_CENTER = 8  # at least, in a round
_MOST_REPAIRS = 20
_SAME = 1e-6  # 1 - cosine, below which two rows are the same: more is the rounding of long sums
_AT_ONCE = 1 << 23  # similarities that are held at a time


def spherical_kmeans(rows: Tensor, count: int, seed: int = 0) -> Tensor | None:
    """`count` unit vectors [count, D], each the mean direction of its own of the unit `rows` [N, D].

    A row belongs to the center of the largest cosine. Centers with few rows take half of those of a
    center with many, and none is without rows at the end. None where fewer than `count` rows differ.
    Runs on the rows' device; on a CPU the same seed gives the same centers.
    """
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rows), generator=random).to(rows.device)
    centers = rows[order[:count]].clone()
    for share in _ROUNDS:
        size = min(max(round(share * len(rows)), _ROWS_A_CENTER * count), len(rows))
        part = rows if size == len(rows) else rows[order[:size]]
        order = order.roll(-size)  # the next rows in the next round
        owner, cosines = nearest_center(part, centers)
        members = torch.bincount(owner, minlength=count)
        sums = torch.zeros_like(centers).index_add_(0, owner, part)
        centers = torch.where(members[:, None] > 0, F.normalize(sums, dim=1), centers)
        few = (members < _FEW * len(part) / count).nonzero()[:, 0]
        # many equal rows are a large group that cannot be divided
        chosen = _drawn(members[owner] * _apart(cosines), len(few), random)
        # near the old center: a single row is far from all others where there are many dimensions
        beside = centers[owner[chosen]] + _STEP * part[chosen]
        centers[few[: len(chosen)]] = F.normalize(beside, dim=1)
        del part  # before the next is taken: it may be gigabytes
    for _ in range(_MOST_REPAIRS):
        owner, cosines = nearest_center(rows, centers)
        none = (torch.bincount(owner, minlength=count) == 0).nonzero()[:, 0]
        if not len(none):
            return centers
        for center in none:  # one by one, as k-means++ does: no two of them on equal rows
            chosen = _drawn(_apart(cosines), 1, random)
            if not len(chosen):
                return None
            centers[center] = rows[chosen[0]]
            cosines = torch.maximum(cosines, rows @ centers[center])
    return None


def nearest_center(rows: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The number [N] of the center of the largest cosine, and that cosine; all are unit vectors."""
    parts = torch.split(rows, max(_AT_ONCE // len(centers), 1))
    best = [(part @ centers.T).max(1) for part in parts]
    return torch.cat([b.indices for b in best]), torch.cat([b.values for b in best])


def _apart(cosines: Tensor) -> Tensor:
    """How far rows are from a center, 0 for those that are the same."""
    apart = 1 - cosines
    return apart.where(apart > _SAME, 0)


def _drawn(weights: Tensor, count: int, random: torch.Generator) -> Tensor:
    """Up to `count` different rows, drawn with weights [N]; none of weight 0."""
    draws = torch.empty(len(weights)).exponential_(generator=random).to(weights.device)
    best = (weights / draws).topk(min(count, len(weights)))
    return best.indices[best.values > 0]
