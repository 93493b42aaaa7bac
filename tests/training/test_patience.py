"""`schedule.patience`: a run ends when validation has not improved for so long."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.training.workbench import RECIPE, FailAt, run
from torch import nn

from tokenlabel.errors import InputError
from tokenlabel.runs.recipe import Ema
from tokenlabel.runs.results import read_metrics

PATIENT = dataclasses.replace(
    RECIPE,
    ema=Ema(decay=None),
    schedule=dataclasses.replace(RECIPE.schedule, epochs=6, patience=2),
)


class Judge:
    """A validation that gives these accuracies, one after the other."""

    def __init__(self, *accuracies: float) -> None:
        self.left: Iterator[float] = iter(accuracies)

    def __call__(self, _model: nn.Module) -> dict[str, float]:
        return {"top1": next(self.left)}


def test_a_run_stops_after_validations_without_improvement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run(PATIENT, tmp_path / "run", validation=Judge(0.2, 0.5, 0.5, 0.4, 0.9))
    assert results["updates"] == 16  # four epochs of four updates
    assert results["stopped_early"]
    assert results["best_top1"] == 0.5
    assert results["best_checkpoint"] == "checkpoints/step-00000008"
    assert "stopped early: no better top1 in 2 validations" in capsys.readouterr().err
    assert run(PATIENT, tmp_path / "run") == results  # complete: nothing to train


def test_the_last_figures_before_an_early_stop_are_logged_once(tmp_path: Path) -> None:
    rare = dataclasses.replace(PATIENT, log_every=3)
    run(rare, tmp_path / "run", validation=Judge(0.5, 0.4, 0.3))
    logged = [entry["update"] for entry in read_metrics(tmp_path / "run") if "loss" in entry]
    assert logged == [3, 6, 9, 12]
    with_rest = dataclasses.replace(PATIENT, log_every=5)
    run(with_rest, tmp_path / "rest", validation=Judge(0.5, 0.4, 0.3))
    (tmp_path / "rest/results.json").unlink()
    run(with_rest, tmp_path / "rest", validation=Judge())  # killed before its results were written
    logged = [entry["update"] for entry in read_metrics(tmp_path / "rest") if "loss" in entry]
    assert logged == [5, 10, 12]


def test_an_improvement_starts_the_count_anew(tmp_path: Path) -> None:
    judge = Judge(0.2, 0.1, 0.3, 0.2, 0.4, 0.3)
    results = run(PATIENT, tmp_path / "run", validation=judge)
    assert (results["updates"], results["stopped_early"]) == (24, False)


def test_the_count_survives_a_crash(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        run(PATIENT, tmp_path / "run", validation=Judge(0.5, 0.4), spoil=FailAt(9))
    results = run(PATIENT, tmp_path / "run", validation=Judge(0.5))
    assert results["updates"] == 12


def test_patience_needs_images_to_validate_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images for it"):
        run(PATIENT, tmp_path / "run")
    assert not (tmp_path / "run").exists()
