"""How far measures may be trusted: scenes, and runs, drawn again with replacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tokenlabel.segmentation.metrics import SegmentationCounts, measures

__all__ = ["Difference", "intervals", "paired_differences"]

_DRAWS = 2000
_SEED = 0
_INSIDE = (0.025, 0.975)


@dataclass(frozen=True)
class Difference:
    """One side's measure minus the other's, on the same scenes; fractions."""

    mean: float
    interval: tuple[float, float]
    """Holds the true difference with 95 % confidence."""
    p: float
    """Two-sided: how often a difference of the other sign is drawn, twice."""


def intervals(counts: SegmentationCounts) -> dict[str, tuple[float, float]]:
    """95 % confidence intervals of all measures, over scenes (percentile bootstrap)."""
    drawn = measures(_resampled(counts.scenes, _scene_weights(len(counts.scenes))))
    return {name: _inside(values) for name, values in drawn.items()}


def paired_differences(
    ours: Sequence[SegmentationCounts], theirs: Sequence[SegmentationCounts]
) -> dict[str, Difference]:
    """The differences of two sides, each of one run or of several, measured on the same scenes.

    Every draw takes the same scenes for all runs; of several runs it takes as many again, the same
    places on both sides where these have equally many (runs are paired, by seed say).
    """
    scenes = _scene_weights(len(ours[0].scenes))
    picks = [_run_weights(len(side)) for side in (ours, theirs)]
    found = {}
    sides = [
        [(measures(_resampled(run.scenes, scenes)), run.summary()) for run in side]
        for side in (ours, theirs)
    ]
    for name in sides[0][0][1]:
        drawn, exact = [], []
        for runs, weights in zip(sides, picks, strict=True):
            drawn.append((torch.stack([d[name] for d, _ in runs], 1) * weights).sum(1))
            exact.append(sum(s[name] for _, s in runs) / len(runs))
        gap = drawn[0] - drawn[1]
        tail = 1 + min(int((gap <= 0).sum()), int((gap >= 0).sum()))
        p = min(2 * tail / (len(gap) + 1), 1.0)
        found[name] = Difference(exact[0] - exact[1], _inside(gap), p)
    return found


def _scene_weights(scenes: int) -> Tensor:
    """How often each scene is drawn, [draws, N]."""
    return _multinomial(scenes, _SEED)


def _run_weights(runs: int) -> Tensor:
    """The share of each run in a draw, [draws, R]."""
    return _multinomial(runs, _SEED + 1) / runs


def _multinomial(count: int, seed: int) -> Tensor:
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), _DRAWS)
    return torch.from_numpy(drawn).double()


def _resampled(scenes: Tensor, weights: Tensor) -> Tensor:
    """Counts [draws, C, 6] of scenes [N, C, 6] drawn so often."""
    return (weights @ scenes.flatten(1).double()).view(len(weights), *scenes.shape[1:])


def _inside(values: Tensor) -> tuple[float, float]:
    low, high = torch.quantile(values, torch.tensor(_INSIDE, dtype=values.dtype)).tolist()
    return low, high
