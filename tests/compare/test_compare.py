"""Comparisons pair their seeds, tell losses as plainly as gains, and go on where they stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tokenlabel.compare import Comparison, Plan, Record, compare
from tokenlabel.compare.comparison import markdown, plus_minus
from tokenlabel.compare.record import read_record
from tokenlabel.compare.statistics import paired_difference
from tokenlabel.errors import InputError


def test_differences_are_paired_by_seed() -> None:
    """By hand: t = 4.157 with 2 degrees of freedom; scipy.stats.ttest_rel says p = 0.0533."""
    scores = {"a": {0: 51.0, 1: 62.0, 2: 73.5, 9: 0.0}, "b": {2: 71.0, 0: 50.0, 1: 60.0}}
    gap = paired_difference(scores, "a", "b")
    assert gap is not None
    assert gap.by_seed == {0: 1.0, 1: 2.0, 2: 2.5}
    assert gap.mean == pytest.approx(1.8333, abs=1e-4)
    assert gap.p == pytest.approx(0.0533, abs=2e-4)
    assert gap.interval == pytest.approx((-0.0639, 3.7306), abs=1e-3)
    assert paired_difference({"a": {0: 1.0}, "b": {1: 1.0}}, "a", "b") is None


def test_the_error_is_that_of_all_arms() -> None:
    """By hand: residuals of three arms x three seeds, four degrees of freedom."""
    scores = {
        "a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": {0: 2.0, 1: 2.0, 2: 5.0}, "c": {0: 4.0, 1: 6.0, 2: 8.0}
    }  # fmt: skip
    rows = np.array([list(found.values()) for found in scores.values()])
    left = rows - rows.mean(1, keepdims=True) - rows.mean(0) + rows.mean()
    error = np.sqrt(2 * (left**2).sum() / 4 / 3)
    gap = paired_difference(scores, "c", "a")
    assert gap is not None
    assert gap.interval is not None
    assert gap.mean == pytest.approx(4)
    assert gap.interval[1] - gap.mean == pytest.approx(2.776445 * error, rel=1e-5)
    assert paired_difference({**scores, "d": {0: 1.0}}, "c", "a") == gap


def test_equal_differences_of_one_pair_are_not_called_certain() -> None:
    """Two seeds on ten images: equal by chance, as the third arm shows."""
    scores = {"a": {0: 50.0, 1: 60.0}, "b": {0: 60.0, 1: 70.0}, "c": {0: 60.0, 1: 50.0}}
    gap = paired_difference(scores, "b", "a")
    assert gap is not None
    assert gap.p is not None
    assert gap.p > 0.05
    alone = paired_difference({name: scores[name] for name in "ab"}, "b", "a")
    assert alone is not None
    assert (alone.interval, alone.p) == ((10.0, 10.0), 0.0)


def runs(arm: str, *scores: float) -> list[Record]:
    return [Record(arm, seed, score, 1.0) for seed, score in enumerate(scores)]


def test_a_line_has_the_difference_that_the_decision_tells() -> None:
    """One statistic: of the table, the sentence and `results.json`."""
    records = [*runs("labels only", 50, 60), *runs("distilled", 40, 41), *runs("ours", 45, 53)]
    found = Comparison(("labels only", "distilled", "ours"), tuple(records))
    base, _, ours = found.lines()
    assert (base.mean, ours.mean) == (55, 49)
    assert base.spread == pytest.approx(7.07, abs=0.01)
    gap = ours.versus
    assert gap is not None
    assert gap == found.deciding
    assert gap.mean == -6
    said = found.decision()
    assert "-6.0 points against the best other arm (labels only)" in said
    assert f"95 % interval {gap.interval_text()}, p = {gap.p_text()}, over 2 seeds" in said


def test_runs_are_made_once_seed_by_seed(tmp_path: Path) -> None:
    made = []

    def run(arm: str, seed: int) -> Record:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append((arm, seed))
        return Record(arm, seed, 50.0 + seed, 2.0, {"command": "x"})

    plan = Plan(("labels only", "+ tokens"), (0, 1), run, tmp_path / "records")
    with pytest.raises(KeyboardInterrupt):
        compare(plan)
    assert made == [("labels only", 0), ("+ tokens", 0), ("labels only", 1)]
    made.clear()
    found = compare(plan)
    assert made == [("+ tokens", 1)]
    assert [(r.arm, r.seed) for r in found.records][-1] == ("+ tokens", 1)
    assert found.records[0].details == {"command": "x"}


def test_what_is_no_comparison_is_refused(tmp_path: Path) -> None:
    def run(arm: str, seed: int) -> Record:
        raise AssertionError

    for arms, seeds in (
        (("a",), (0,)),
        (("a b", "a-b"), (0,)),
        (("a", "b"), ()),
        (("a", "b"), (0, 0)),
    ):
        with pytest.raises(InputError, match="a comparison needs"):
            compare(Plan(arms, seeds, run, tmp_path))
    (tmp_path / "a-0.json").write_text("{")
    with pytest.raises(InputError, match="is not a record of a run"):
        compare(Plan(("a", "b"), (0,), run, tmp_path))
    (tmp_path / "a-0.json").write_text('{"arm": "c", "seed": 0, "score": 1}')
    with pytest.raises(InputError, match="is of c, seed 0"):
        compare(Plan(("a", "b"), (0,), run, tmp_path))


def test_numbers_as_text() -> None:
    assert plus_minus({0: 50.0, 1: 60.0}) == "55.00 ± 7.07"
    assert plus_minus({0: 50.0}, 1) == "50.0"
    assert plus_minus({}) == "-"
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.parametrize(
    "text", [b"\xff", b"[1]", b"{}", b"[" * 3000, b'{"arm": "a", "seed": [], "score": 1}']
)
def test_a_damaged_record_is_one_line(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "a-0.json").write_bytes(text)
    with pytest.raises(InputError, match=r"a-0\.json is not a record of a run"):
        read_record(tmp_path / "a-0.json")
