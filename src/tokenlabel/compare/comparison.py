"""Records of arms and seeds, as a table and a decision."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenlabel.compare.record import Record
from tokenlabel.compare.statistics import Difference, mean_and_spread, paired_difference

__all__ = ["Comparison", "Line", "markdown", "plus_minus"]

_MORE = 2  # seeds, where those that are there say too little
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
    processor_seconds: float | None  # the same, of all cores; None where no run knows


@dataclass(frozen=True)
class Comparison:
    """All runs of a comparison. The first arm is the baseline, the last the one in question."""

    arms: tuple[str, ...]
    records: tuple[Record, ...]

    def scores(self, arm: str) -> dict[int, float]:
        """Percent by seed of the runs that are done."""
        return {record.seed: record.score for record in self.records if record.arm == arm}

    def difference(self, arm: str, other: str) -> Difference | None:
        """`arm` minus `other` on the seeds of both, its error estimated from all arms."""
        names = dict.fromkeys((*self.arms, arm, other))
        return paired_difference({name: self.scores(name) for name in names}, arm, other)

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
            versus = None if arm == self.arms[0] else self.difference(arm, self.arms[0])
            used = [run.details.get("processor_seconds") for run in runs]
            known = [value for value in used if value is not None]
            busy = statistics.fmean(known) if known else None
            found.append(Line(arm, mean, spread, len(runs), versus, seconds, busy))
        return found

    @property
    def rival(self) -> str:
        """The best of the arms beside the one in question."""
        return self.strongest(self.arms[:-1])

    @property
    def deciding(self) -> Difference | None:
        """The difference that decides: of the arm in question to its `rival`."""
        return self.difference(self.arms[-1], self.rival)

    def decision(self) -> str:
        """In words: use what the last arm does, do not, or more seeds are needed, and how."""
        gap, rival = self.deciding, self.rival
        more = len(self.scores(self.arms[-1])) + _MORE
        how = f"The same command with --seeds {more} keeps the finished runs and trains only new ones."
        if gap is None or gap.interval is None:
            known = "" if gap is None else f" (one seed: {gap.mean:+.1f} points against {rival})"
            return f"More seeds are needed{known}. {how}"
        low, high = gap.interval
        said = (
            f"{gap.mean:+.1f} points against the best other arm ({rival}), 95 % interval"
            f" {gap.interval_text()}, p = {gap.p_text()}, over {len(gap.by_seed)} seeds"
        )
        name = self.arms[-1].removeprefix("+ ")
        if low > 0:
            return f"Use {name}: {said}."
        if high < 0:
            return f"Do not use {name}: {said}."
        if max(-low, high) < _NOTHING:
            return f"Do not use {name}, they change nothing: {said}."
        return f"More seeds are needed to tell whether {name} help: {said}. {how}"


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
