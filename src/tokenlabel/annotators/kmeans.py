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
_AT_ONCE = 1 << 25  # similarities that are held at a time


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
        part = rows[order[:size]]
        order = order.roll(-size)  # the next rows in the next round
        owner = nearest_center(part, centers)
        members = torch.bincount(owner, minlength=count)
        sums = torch.zeros_like(centers).index_add_(0, owner, part)
        centers = torch.where(members[:, None] > 0, F.normalize(sums, dim=1), centers)
        few = (members < _FEW * len(part) / count).nonzero()[:, 0]
        chosen = _of_many(len(few), owner, members, random)
        # near the old center: a single row is far from all others where there are many dimensions
        beside = centers[owner[chosen]] + _STEP * part[chosen]
        centers[few[: len(chosen)]] = F.normalize(beside, dim=1)
    for _ in range(_MOST_REPAIRS):
        owner = nearest_center(rows, centers)
        members = torch.bincount(owner, minlength=count)
        none = (members == 0).nonzero()[:, 0]
        if not len(none):
            return centers
        chosen = _of_many(len(none), owner, members, random)
        centers[none[: len(chosen)]] = rows[chosen]
    return None


def nearest_center(rows: Tensor, centers: Tensor) -> Tensor:
    """The number [N] of the center of the largest cosine; all are unit vectors."""
    parts = torch.split(rows, max(_AT_ONCE // len(centers), 1))
    return torch.cat([(part @ centers.T).argmax(1) for part in parts])


def _of_many(count: int, owner: Tensor, members: Tensor, random: torch.Generator) -> Tensor:
    """`count` different rows, drawn with the sizes of their groups as weights."""
    draws = torch.empty(len(owner)).exponential_(generator=random).to(owner.device)
    return (draws / members[owner]).topk(min(count, len(owner)), largest=False).indices
