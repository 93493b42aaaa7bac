"""`engine.precision=auto` on a CPU: the quicker arithmetic, found by trying, which a run keeps."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.workbench import RECIPE, FailAt, MemoryBatches, make_task, run

from tokenlabel.models import arithmetic
from tokenlabel.runs.recipe import Recipe
from tokenlabel.training import engine
from tokenlabel.training.precision import quicker_precision
from tokenlabel.training.ranks import Ranks


def with_precision(wanted: Any) -> Recipe:
    return dataclasses.replace(RECIPE, engine=dataclasses.replace(RECIPE.engine, precision=wanted))


AUTO = with_precision("auto")


@pytest.mark.parametrize(("half", "chosen"), [(0.2, "bf16"), (9.0, "fp32")], ids=str)
def test_the_quicker_arithmetic_is_taken(
    monkeypatch: pytest.MonkeyPatch, half: float, chosen: str
) -> None:
    seconds = {torch.float32: 1.0, torch.bfloat16: half}
    monkeypatch.setattr(arithmetic, "_seconds", lambda *given: seconds[given[-1]])
    ranks = Ranks(AUTO.engine)
    assert quicker_precision(make_task(AUTO), MemoryBatches(AUTO, ranks), ranks) == chosen


def test_the_trial_leaves_the_task_as_it_was() -> None:
    ranks, task = Ranks(AUTO.engine), make_task(AUTO)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    assert quicker_precision(task, MemoryBatches(AUTO, ranks), ranks) in ("fp32", "bf16")
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(parameter.grad is None for parameter in task.parameters())
    assert all(m.fused_attn for m in task.modules() if hasattr(m, "fused_attn"))


@pytest.mark.parametrize("written", [True, False], ids=["of this version", "of an older one"])
def test_a_run_keeps_what_it_was_begun_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: bool
) -> None:
    monkeypatch.setattr(engine, "quicker_precision", lambda *_: "bf16")
    first = AUTO if written else with_precision("fp32")
    with pytest.raises(RuntimeError, match="power cut"):
        run(first, tmp_path / "run", spoil=FailAt(3))
    file = tmp_path / "run" / "environment.json"
    known = json.loads(file.read_text())
    if not written:
        del known["precision"]
        file.write_text(json.dumps(known))
    monkeypatch.setattr(engine, "quicker_precision", lambda *_: pytest.fail("asked again"))
    run(AUTO, tmp_path / "run")
    assert json.loads(file.read_text())["precision"] == ("bf16" if written else "fp32")


def test_a_run_begun_in_float16_keeps_its_loss_scale(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one that was begun on a GPU without bfloat16 and goes on here."""
    with pytest.raises(RuntimeError, match="power cut"):
        run(with_precision("fp16"), tmp_path / "run", spoil=FailAt(5))
    made: list[Ranks] = []
    monkeypatch.setattr(engine, "Ranks", lambda given: made.append(Ranks(given)) or made[-1])
    run(AUTO, tmp_path / "run")
    assert made[0].precision == "fp16"
    assert made[0].scaler is not None
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["precision"] == "fp16"
