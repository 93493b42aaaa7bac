"""Student's t equals scipy's."""

from __future__ import annotations

import pytest

from tokenlabel.evaluation.t_test import t_quantile, t_tails, t_test


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30])
def test_students_t_is_scipys(freedom: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    for t in (0.0, 0.3, 1.0, 2.5, 12.0):
        assert t_tails(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), abs=1e-12)
    for probability in (0.5, 0.9, 0.975, 0.999):
        expected = stats.t.ppf(probability, freedom)
        assert t_quantile(probability, freedom) == pytest.approx(expected, abs=1e-9)


def test_a_test_of_a_mean_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = [1.0, 2.0, 2.5, 0.5]
    theirs = stats.ttest_1samp(values, 0.0)
    interval, p = t_test(1.5, stats.sem(values), 3)
    assert interval == pytest.approx(tuple(theirs.confidence_interval()))
    assert p == pytest.approx(theirs.pvalue)
