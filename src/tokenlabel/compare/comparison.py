"""Records of arms and seeds, as a table and a verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenlabel.compare.record import Record
from tokenlabel.compare.statistics import (
    Difference,
    mean_and_spread,
    paired_difference,
    pooled_difference,
)

__all__ = ["Comparison", "Line", "markdown", "plus_minus"]

_CHANCE = 0.05  # p-values from here on are called chance: the usual level
_NOTHING = 0.5  # points: a difference that is surely smaller is worth no labels


@dataclass(frozen=True)
class Line:
    """An arm over its seeds, in percent; `versus` is its difference to the baseline."""

    arm: str
    mean: float
    spread: float  # standard deviation; not a number for one seed
    seeds: int
    versus: Difference | None
    seconds: float  # of a run, on average


@dataclass(frozen=True)
class Comparison:
    """All runs of a comparison. The first arm is the baseline, the last the one in question."""

    arms: tuple[str, ...]
    records: tuple[Record, ...]

    def scores(self, arm: str) -> dict[int, float]:
        """Percent by seed of the runs that are done."""
        return {record.seed: record.score for record in self.records if record.arm == arm}

    def difference(self, arm: str, other: str) -> Difference | None:
        """`arm` minus `other` on the seeds of both."""
        return paired_difference(self.scores(arm), self.scores(other))

    def gap(self, arm: str, other: str) -> Difference | None:
        """The same, its error estimated from all arms."""
        return pooled_difference({name: self.scores(name) for name in self.arms}, arm, other)

    def strongest(self, arms: Iterable[str]) -> str:
        """The arm with the best mean."""
        means = {arm: mean_and_spread(self.scores(arm))[0] for arm in arms}
        return max(means, key=lambda arm: -math.inf if math.isnan(means[arm]) else means[arm])

    def lines(self) -> list[Line]:
        """One line an arm, in order."""
        found = []
        for arm in self.arms:
            runs = [record for record in self.records if record.arm == arm]
            mean, spread = mean_and_spread(self.scores(arm))
            seconds = statistics.fmean([run.seconds for run in runs]) if runs else math.nan
            versus = self.difference(arm, self.arms[0])
            found.append(Line(arm, mean, spread, len(runs), versus, seconds))
        return found

    def decision(self) -> str:
        """In one sentence: use what the last arm does, do not, or more seeds are needed."""
        *others, ours = self.arms
        rival = self.strongest(others)
        gap = self.gap(ours, rival)
        if gap is None or gap.interval is None:
            known = "" if gap is None else f" (one seed: {gap.mean:+.1f} points against {rival})"
            return f"More seeds are needed{known}."
        low, high = gap.interval
        said = (
            f"{gap.mean:+.1f} points against the best other arm ({rival}), 95 % interval {low:+.1f} to"
            f" {high:+.1f} over {len(gap.by_seed)} seeds"
        )
        name = ours.removeprefix("+ ")
        if low > 0:
            return f"Use {name}: {said}."
        if high < 0:
            return f"Do not use {name}: {said}."
        if max(-low, high) < _NOTHING:
            return f"Do not use {name}, they change nothing: {said}."
        return f"More seeds are needed to tell whether {name} help: {said}."

    def verdict(self) -> str:
        """What the numbers say of the last arm, whichever way they fall."""
        *others, ours = self.arms
        rival = self.strongest(others)
        gap = self.difference(ours, rival)
        if gap is None:
            return f"No seed has both {ours} and {rival} yet."
        word = "ahead of" if gap.mean > 0 else "behind" if gap.mean < 0 else "level with"
        name = ours.removeprefix("+ ").capitalize()
        said = f"{name}: {abs(gap.mean):.1f} points {word} the best other arm ({rival})"
        if gap.interval is None or gap.p is None:
            return f"{said}. One seed: differences of a point or two may be chance."
        low, high = gap.interval
        chance = "; this may be chance" if gap.p >= _CHANCE else ""
        return (
            f"{said} (95 % interval {low:+.1f} to {high:+.1f}, p = {gap.p:.3f} in a paired t-test"
            f" over {len(gap.by_seed)} seeds){chance}."
        )


def plus_minus(values: dict[int, float], digits: int = 2) -> str:
    """Mean ± standard deviation; "-" where there is nothing."""
    mean, spread = mean_and_spread(values)
    if math.isnan(mean):
        return "-"
    return f"{mean:.{digits}f}" + ("" if math.isnan(spread) else f" ± {spread:.{digits}f}")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
