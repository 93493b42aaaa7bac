"""Nothing that kills a run changes its result."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from workbench import (
    OFTEN,
    RECIPE,
    DieAt,
    FailAt,
    MemoryBatch,
    processes,
    run,
    start_ranks,
    weights,
)

from tokenlabel.errors import InputError
from tokenlabel.runs.checkpoints import CheckpointFolder
from tokenlabel.runs.recipe import Optimizer, Recipe
from tokenlabel.runs.results import read_metrics
from tokenlabel.training.signals import Preempted

# dropout and stochastic depth draw random numbers
MODEL = {"drop_path_rate": 0.3, "proj_drop_rate": 0.1}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run(RECIPE, folder, **MODEL)
    return folder


def _measured(folder: Path) -> list[dict[str, Any]]:
    clock = ("images_per_second", "data_wait", "memory_gb")
    return [
        {key: value for key, value in entry.items() if key not in clock}
        for entry in read_metrics(folder)
    ]


def test_kill_9_at_random_updates_leaves_the_same_weights_and_metrics(
    undisturbed: Path, tmp_path: Path
) -> None:
    deaths = frozenset(random.Random(0).sample(range(8), 2))
    for life in range(3):
        options = {"spoil": DieAt(deaths, tmp_path), **MODEL}
        process = processes().Process(target=run, args=(OFTEN, tmp_path / "run"), kwargs=options)
        process.start()
        process.join()
        assert process.exitcode == (-signal.SIGKILL if life < 2 else 0)
    assert_same(weights(tmp_path / "run"), weights(undisturbed))
    assert _measured(tmp_path / "run") == _measured(undisturbed)


def test_kill_9_at_any_moment_leaves_the_same_weights(undisturbed: Path, tmp_path: Path) -> None:
    """Not between updates but while they run, and while checkpoints are written."""
    moments = random.Random(1)
    kills = 0
    while not (tmp_path / "run" / "results.json").exists():
        process = processes().Process(target=run, args=(OFTEN, tmp_path / "run"), kwargs=MODEL)
        process.start()
        if kills < 6:
            process.join(moments.uniform(0.1, 0.6))
            process.kill()
            kills += 1
        process.join()
    assert_same(weights(tmp_path / "run"), weights(undisturbed))


def test_a_run_killed_before_its_recipe_was_written_begins_anew(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("")  # what is left, and a draft
    (tmp_path / "recipe.yaml.0123abcd-99999-89abcdef.tmp").write_text("seed:")
    run(
        dataclasses.replace(RECIPE, schedule=dataclasses.replace(RECIPE.schedule, max_steps=1)),
        tmp_path,
    )
    assert (tmp_path / "results.json").is_file()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no run"):
        run(RECIPE, tmp_path / "other")


def test_muon_resumes_as_well(tmp_path: Path) -> None:
    """Its state is not the usual two moments, and part of the parameters have AdamW's."""

    def with_muon(recipe: Recipe) -> Recipe:
        return dataclasses.replace(recipe, optimizer=Optimizer(name="muon", lr=1e-2))

    run(with_muon(RECIPE), tmp_path / "whole", **MODEL)
    with pytest.raises(RuntimeError):
        run(with_muon(OFTEN), tmp_path / "run", spoil=FailAt(3), **MODEL)
    run(with_muon(OFTEN), tmp_path / "run", **MODEL)
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_checkpoints_do_not_change_the_result(undisturbed: Path, tmp_path: Path) -> None:
    run(OFTEN, tmp_path / "run", **MODEL)
    assert_same(weights(tmp_path / "run"), weights(undisturbed))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_saves_and_the_run_goes_on(
    number: int, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(update: int, _batches: Sequence[MemoryBatch]) -> None:
        if update == 5:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Preempted) as stopped:
        run(RECIPE, tmp_path / "run", spoil=interrupt, **MODEL)
    assert stopped.value.code == 128 + number
    said = (
        f"stopped at update 6 of 8; the state is saved in {tmp_path / 'run'}: run the same command"
    )
    assert said in capsys.readouterr().err
    assert signal.getsignal(number) == before
    newest = CheckpointFolder(tmp_path / "run/checkpoints", 2).steps()[-1]
    assert newest.name == "step-00000006"  # the update under way was finished
    run(RECIPE, tmp_path / "run", **MODEL)
    assert_same(weights(tmp_path / "run"), weights(undisturbed))


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "sums"])
def test_a_damaged_checkpoint_falls_back_and_says_so(
    damage: str, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match="power"):
        run(OFTEN, tmp_path / "run", spoil=FailAt(6), **MODEL)
    older, newest = CheckpointFolder(tmp_path / "run/checkpoints", 2).steps()
    file = newest / ("SHA256SUMS" if damage == "sums" else "optimizer.pt")
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "flip":
        file.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    else:
        file.write_bytes(content[: len(content) // 2])
    run(OFTEN, tmp_path / "run", **MODEL)
    told = " ".join(capsys.readouterr().err.split())
    assert f"{newest.name} is damaged" in told
    assert f"at update {int(older.name[5:])}" in told
    assert_same(weights(tmp_path / "run"), weights(undisturbed))


def test_resume_on_another_number_of_ranks(tmp_path: Path) -> None:
    """One rank, then two, then one: the curve of an undisturbed run within rounding."""
    run(RECIPE, tmp_path / "whole")
    with pytest.raises(RuntimeError):
        run(OFTEN, tmp_path / "run", spoil=FailAt(3))
    for process in start_ranks(2, run, OFTEN, tmp_path / "run", spoil=FailAt(6)):
        process.join()
        assert process.exitcode == 1
    assert CheckpointFolder(tmp_path / "run/checkpoints", 2).steps()[-1].name == "step-00000006"
    run(OFTEN, tmp_path / "run")
    ours, theirs = _measured(tmp_path / "run"), _measured(tmp_path / "whole")
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, abs=1e-4)


def test_keeps_the_last_ones_and_the_best(tmp_path: Path) -> None:
    scores = iter([0.1, 0.2, 0.9, 0.8, 0.3, 0.4])  # of weights and average, epoch by epoch
    three = dataclasses.replace(OFTEN, schedule=dataclasses.replace(RECIPE.schedule, epochs=3))
    results = run(three, tmp_path / "run", validation=lambda _model: {"top1": next(scores)})
    folder = CheckpointFolder(tmp_path / "run/checkpoints", 2)
    assert results["best_checkpoint"] == "checkpoints/step-00000008"
    assert results["best_top1"] == 0.8  # by the average, not by the weights
    assert [step.name for step in folder.steps()] == [
        "step-00000008",
        "step-00000011",
        "step-00000012",
    ]


def test_a_finished_run_resumes_to_its_results(tmp_path: Path) -> None:
    begun = time.monotonic()
    first = run(RECIPE, tmp_path / "run")
    assert first["seconds"] < time.monotonic() - begun
    (tmp_path / "run/results.json").unlink()
    assert run(RECIPE, tmp_path / "run") == first
