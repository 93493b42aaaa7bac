"""How far measures may be trusted: scenes drawn again with replacement, and how runs differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenlabel.errors import InputError
from tokenlabel.evaluation.t_test import t_test
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
    """Two-sided: how likely so large a difference is where there is none."""


def intervals(counts: SegmentationCounts) -> dict[str, tuple[float, float]]:
    """95 % confidence intervals of all measures, over scenes (percentile bootstrap)."""
    drawn = measures(_resampled(counts.scenes, _scene_weights(len(counts.scenes))))
    return {name: _inside(values) for name, values in drawn.items()}


def paired_differences(
    ours: Sequence[SegmentationCounts], theirs: Sequence[SegmentationCounts]
) -> dict[str, Difference]:
    """The differences of two sides, each of one run or of several, measured on the same scenes.

    The variance is that of the scenes (bootstrap, the same draws for all runs) plus, where a side has
    several runs, that of the runs; Student's t has the degrees of freedom of the runs. Equally many runs
    on both sides are pairs, by seed say. Of one run a side the differences are those of these two runs,
    for other scenes. Raises InputError for fewer than two scenes.
    """
    count = len(ours[0].scenes)
    if count < 2:
        raise InputError(
            "a comparison needs two scenes or more: one does not show how scenes differ"
        )
    weights = _scene_weights(count)
    sides = [
        [(measures(_resampled(run.scenes, weights)), run.summary()) for run in side]
        for side in (ours, theirs)
    ]
    found = {}
    for name in sides[0][0][1]:
        drawn = [torch.stack([values[name] for values, _ in runs]).mean(0) for runs in sides]
        exact = [np.array([summary[name] for _, summary in runs]) for runs in sides]
        by_scenes = float((drawn[0] - drawn[1]).var()) * count / (count - 1)
        by_runs, freedom = _between_runs(*exact)
        mean = float(exact[0].mean() - exact[1].mean())
        error = math.sqrt(by_scenes + by_runs)
        found[name] = Difference(mean, *t_test(mean, error, min(freedom or count, count - 1)))
    return found


def _between_runs(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, int]:
    """The variance of the difference of two sides' means, and its degrees of freedom; 0 of one run
    a side. Sides of different size are taken to vary alike."""
    runs = len(first), len(second)
    if runs[0] == runs[1]:
        return (float((first - second).var(ddof=1)) / runs[0] if runs[0] > 1 else 0.0), runs[0] - 1
    freedom = sum(runs) - 2
    squares = sum(float(((side - side.mean()) ** 2).sum()) for side in (first, second))
    return squares / freedom * (1 / runs[0] + 1 / runs[1]), freedom


def _scene_weights(scenes: int) -> Tensor:
    """How often each scene is drawn, [draws, N]."""
    drawn = np.random.default_rng(_SEED).multinomial(scenes, np.full(scenes, 1 / scenes), _DRAWS)
    return torch.from_numpy(drawn).double()


def _resampled(scenes: Tensor, weights: Tensor) -> Tensor:
    """Counts [draws, C, 6] of scenes [N, C, 6] drawn so often."""
    return (weights @ scenes.flatten(1).double()).view(len(weights), *scenes.shape[1:])


def _inside(values: Tensor) -> tuple[float, float]:
    low, high = torch.quantile(values, torch.tensor(_INSIDE, dtype=values.dtype)).tolist()
    return low, high
