"""Comparisons pair their seeds, tell losses as plainly as gains, and go on where they stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenlabel.compare import Comparison, Plan, Record, compare
from tokenlabel.compare.comparison import markdown, plus_minus
from tokenlabel.compare.record import read_record
from tokenlabel.compare.statistics import paired_difference, t_quantile, t_tails
from tokenlabel.errors import InputError


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30])
def test_students_t_is_scipys(freedom: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    for t in (0.0, 0.3, 1.0, 2.5, 12.0):
        assert t_tails(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), abs=1e-12)
    for probability in (0.5, 0.9, 0.975, 0.999):
        expected = stats.t.ppf(probability, freedom)
        assert t_quantile(probability, freedom) == pytest.approx(expected, abs=1e-9)


def test_differences_are_paired_by_seed() -> None:
    """By hand: t = 4.157 with 2 degrees of freedom; scipy.stats.ttest_rel says p = 0.0533."""
    gap = paired_difference({0: 51.0, 1: 62.0, 2: 73.5, 9: 0.0}, {2: 71.0, 0: 50.0, 1: 60.0})
    assert gap is not None
    assert gap.by_seed == {0: 1.0, 1: 2.0, 2: 2.5}
    assert gap.mean == pytest.approx(1.8333, abs=1e-4)
    assert gap.p == pytest.approx(0.0533, abs=2e-4)
    assert gap.interval == pytest.approx((-0.0639, 3.7306), abs=1e-3)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_equal_differences_have_no_error() -> None:
    gap = paired_difference({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0})
    assert gap is not None
    assert (gap.interval, gap.p) == ((1.0, 1.0), 0.0)


def runs(arm: str, *scores: float) -> list[Record]:
    return [Record(arm, seed, score, 1.0) for seed, score in enumerate(scores)]


def test_losses_are_told_as_plainly_as_gains() -> None:
    records = [*runs("labels only", 50, 60), *runs("distilled", 40, 41), *runs("ours", 45, 53)]
    found = Comparison(("labels only", "distilled", "ours"), tuple(records))
    base, _, ours = found.lines()
    assert (base.mean, ours.mean) == (55, 49)
    assert base.spread == pytest.approx(7.07, abs=0.01)
    assert ours.versus is not None
    assert ours.versus.mean == -6
    said = found.verdict()
    assert "Ours: 6.0 points behind the best other arm (labels only)" in said
    assert "may be chance" in said


def test_a_clear_gain_is_not_called_chance_and_one_seed_always_is() -> None:
    clear = Comparison(("a", "b"), (*runs("a", 50, 60, 70), *runs("b", 55, 65.1, 74.9)))
    assert "B: 5.0 points ahead of" in clear.verdict()
    assert "may be chance" not in clear.verdict()
    assert "One seed" in Comparison(("a", "b"), (*runs("a", 50), *runs("b", 59))).verdict()
    assert "yet" in Comparison(("a", "b"), tuple(runs("a", 50))).verdict()


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
    with pytest.raises(InputError, match="is no record of a run"):
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
    with pytest.raises(InputError, match=r"a-0\.json is no record of a run"):
        read_record(tmp_path / "a-0.json")
