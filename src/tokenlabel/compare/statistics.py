"""Differences paired by seed: mean, confidence interval and p-value, one statistic for all reports."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from tokenlabel.evaluation.t_test import t_test

__all__ = [
    "Difference",
    "mean_and_spread",
    "paired_difference",
]


@dataclass(frozen=True)
class Difference:
    """One arm minus another, seed by seed, in points.

    `interval` holds the true mean with 95 % confidence and `p` is two-sided; both are None below two
    seeds. See `paired_difference`.
    """

    mean: float
    by_seed: dict[int, float]
    interval: tuple[float, float] | None
    p: float | None

    def interval_text(self) -> str:
        return "-" if self.interval is None else "{:+.1f} to {:+.1f}".format(*self.interval)

    def p_text(self) -> str:
        return "-" if self.p is None else f"{self.p:.3f}"


def paired_difference(
    scores: Mapping[str, Mapping[int, float]], ours: str, theirs: str
) -> Difference | None:
    """`ours` minus `theirs` on the seeds of both, of `scores` (arm -> seed -> score); None without any.

    Its error is that of randomized blocks (arms x seeds, Fisher): what is left of the scores of all arms
    beside the effects of arm and seed, taken as equally large in all arms, with (arms - 1)(seeds - 1)
    degrees of freedom. With two arms this is the paired t-test. Why not that one for every pair:
    - of two or three seeds, a pair has one or two degrees of freedom, whose intervals are three or two
      times as wide as those of four arms;
    - accuracies on a finite validation set are whole numbers of images. The differences of one pair are
      then often equal by chance, and its t-test calls them certain; those of all arms seldom are.
    All runs are judged on the same images, so the interval says how training varies on these; what
    other images would give is not in it. Arms without a score for each of the seeds are left out of
    the error.
    """
    seeds = sorted(scores[ours].keys() & scores[theirs].keys())
    if not seeds:
        return None
    gaps = {seed: scores[ours][seed] - scores[theirs][seed] for seed in seeds}
    mean = statistics.fmean(gaps.values())
    if len(seeds) < 2:
        return Difference(mean, gaps, None, None)
    rows = [
        [found[seed] for seed in seeds]
        for found in scores.values()
        if all(seed in found for seed in seeds)
    ]
    by_seed = [statistics.fmean(column) for column in zip(*rows, strict=True)]
    whole = statistics.fmean(by_seed)
    left = [
        value - statistics.fmean(row) - column + whole
        for row in rows
        for value, column in zip(row, by_seed, strict=True)
    ]
    freedom = (len(rows) - 1) * (len(seeds) - 1)
    variance = sum(value**2 for value in left) / freedom
    error = math.sqrt(2 * variance / len(seeds))
    return Difference(mean, gaps, *t_test(mean, error, freedom))


def mean_and_spread(values: Mapping[int, float]) -> tuple[float, float]:
    """Mean and standard deviation; not a number where there are too few."""
    each = list(values.values())
    return (
        statistics.fmean(each) if each else math.nan,
        statistics.stdev(each) if len(each) > 1 else math.nan,
    )
