"""Student's t-test: how far a mean may be trusted, given its standard error."""

from __future__ import annotations

import math

__all__ = ["t_quantile", "t_tails", "t_test"]


def t_test(mean: float, error: float, freedom: int) -> tuple[tuple[float, float], float]:
    """The 95 % confidence interval of a mean, and the two-sided p-value of its being 0.

    `error` is its standard error, known with so many degrees of freedom.
    """
    reach = t_quantile(0.975, freedom) * error
    p = t_tails(abs(mean) / error, freedom) if error else float(mean == 0)
    return (mean - reach, mean + reach), p


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
