"""`proof/run.py` plans what there is time for, and says so."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "proof"))  # scripts import their like
RUN, RUNS = map(importlib.import_module, ("run", "runs"))


@pytest.mark.parametrize(("rate", "per_class"), [(330.0, 5000), (27.0, 1000)])
def test_a_slow_processor_gets_fewer_images(
    rate: float, per_class: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(RUN, "RESULTS", tmp_path)
    monkeypatch.setattr(RUN, "SCALE", tmp_path / "scale.json")
    options = argparse.Namespace(budget="15h", workers=2)
    assert RUN.affordable(dict.fromkeys(RUNS.STUDENTS, rate), options) == per_class
    assert f"runs on {10 * per_class:,} images" in capsys.readouterr().out
    assert json.loads((tmp_path / "scale.json").read_text())["cifar10_per_class"] == per_class
    # what was settled holds when the same command goes on at another rate
    assert RUN.affordable(dict.fromkeys(RUNS.STUDENTS, 1.0), options) == per_class


def test_runs_that_would_end_too_late_are_left_out_and_said(capsys: Any) -> None:
    few = RUNS.images("cifar10", 50)
    runs = [RUNS.Run(few, "vit", "labels", seed) for seed in range(3)]
    rates = {"vit": runs[0].passes / 60}  # a minute each
    kept = RUN.fitting(runs, rates, time.monotonic() + 90, workers=2)
    assert kept == runs[:2]
    assert f"{runs[2].name}: not run, it would end" in capsys.readouterr().out
