"""Paired differences: mean, confidence interval and p-value of Student's t-test."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "Difference",
    "mean_and_spread",
    "paired_difference",
    "pooled_difference",
    "t_quantile",
    "t_tails",
]


@dataclass(frozen=True)
class Difference:
    """One arm minus another, seed by seed, in points.

    `interval` holds the true mean with 95 % confidence and `p` is the two-sided p-value of the t-test
    (paired, or with pooled errors); both are None below two seeds.
    """

    mean: float
    by_seed: dict[int, float]
    interval: tuple[float, float] | None
    p: float | None

    def interval_text(self) -> str:
        return "-" if self.interval is None else "{:+.1f} to {:+.1f}".format(*self.interval)


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Of the seeds that both have; None where there is none."""
    gaps = {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}
    if not gaps:
        return None
    mean = statistics.fmean(gaps.values())
    if len(gaps) < 2:
        return Difference(mean, gaps, None, None)
    error = statistics.stdev(gaps.values()) / math.sqrt(len(gaps))
    return _with_error(gaps, error, len(gaps) - 1)


def pooled_difference(
    scores: Mapping[str, Mapping[int, float]], ours: str, theirs: str
) -> Difference | None:
    """As `paired_difference`, with the error that all arms of `scores` (arm -> seed -> score) show.

    Arms x seeds as randomized blocks: what is left of the scores beside the effects of arm and seed is
    error, taken as equally large in all arms. With few seeds this knows the error much better than one
    pair of arms does. Arms or seeds that are incomplete are left out of the error.
    """
    gaps = paired_difference(scores[ours], scores[theirs])
    if gaps is None or gaps.interval is None:
        return gaps
    seeds = sorted(scores[ours].keys() & scores[theirs].keys())
    rows = [
        [found[seed] for seed in seeds]
        for found in scores.values()
        if all(seed in found for seed in seeds)
    ]
    if len(rows) < 3:
        return gaps
    by_seed = [statistics.fmean(column) for column in zip(*rows, strict=True)]
    whole = statistics.fmean(by_seed)
    left = [
        value - statistics.fmean(row) - column + whole
        for row in rows
        for value, column in zip(row, by_seed, strict=True)
    ]
    freedom = (len(rows) - 1) * (len(seeds) - 1)
    variance = sum(value**2 for value in left) / freedom
    return _with_error(gaps.by_seed, math.sqrt(2 * variance / len(seeds)), freedom)


def _with_error(gaps: dict[int, float], error: float, freedom: int) -> Difference:
    mean = statistics.fmean(gaps.values())
    reach = t_quantile(0.975, freedom) * error
    p = t_tails(abs(mean) / error, freedom) if error else float(mean == 0)
    return Difference(mean, gaps, (mean - reach, mean + reach), p)


def mean_and_spread(values: Mapping[int, float]) -> tuple[float, float]:
    """Mean and standard deviation; not a number where there are too few."""
    each = list(values.values())
    return (
        statistics.fmean(each) if each else math.nan,
        statistics.stdev(each) if len(each) > 1 else math.nan,
    )


def t_tails(t: float, freedom: int) -> float:
    """Probability that |T| >= t, for t >= 0 and a whole number of degrees of freedom.

    Abramowitz & Stegun 1964, 26.7.3 and 26.7.4: finite sums.
    """
    angle = math.atan(t / math.sqrt(freedom))
    cos, sin = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term, total = (cos if odd else 1.0), 0.0
    for step in range(odd, freedom - 1, 2):
        total += term
        term *= (step + 1) / (step + 2) * cos * cos
    inside = 2 / math.pi * (angle + sin * total) if odd else sin * total
    return max(1 - inside, 0.0)


def t_quantile(probability: float, freedom: int) -> float:
    """The t below which T lies with that probability, in [0.5, 1): by bisection."""
    low, high = 0.0, 1.0
    while 1 - t_tails(high, freedom) / 2 < probability:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        below = 1 - t_tails(middle, freedom) / 2
        low, high = (middle, high) if below < probability else (low, middle)
    return (low + high) / 2
