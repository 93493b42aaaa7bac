"""What may differ when a run goes on, what may not, and what is written down of it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from workbench import OFTEN, RECIPE, DieAt, FailAt, MemorySpec, SpoilAt, run, start_ranks, weights

from tokenlabel.errors import InputError
from tokenlabel.runs.recipe import Checkpoints, Data, Recipe
from tokenlabel.runs.results import read_metrics
from tokenlabel.training.loop import TrainingDiverged
from tokenlabel.training.ranks import accumulation


def changed(recipe: Recipe, **sections: dict[str, Any]) -> Recipe:
    """The recipe with values of sections replaced."""
    new = {
        name: dataclasses.replace(getattr(recipe, name), **values)
        for name, values in sections.items()
    }
    return dataclasses.replace(recipe, **new)


def environment(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "environment.json").read_text())
    return content


def interrupted(folder: Path, recipe: Recipe = OFTEN) -> Path:
    with pytest.raises(RuntimeError, match="power cut"):
        run(recipe, folder, spoil=FailAt(3))
    return folder


def test_moved_data_is_accepted_and_changed_data_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path / "run")
    elsewhere = dataclasses.replace(OFTEN, data=Data(train="elsewhere", labels="others"))
    with monkeypatch.context() as patch:
        for what, facts in (
            ("training images", {"images_fingerprint": "1"}),
            ("classes", {"classes": list("abcdefz")}),
        ):
            known = MemorySpec.facts
            patch.setattr(MemorySpec, "facts", lambda self, f=facts, k=known: {**k(self), **f})
            with pytest.raises(InputError, match=f"started with other {what}") as refused:
                run(elsewhere, tmp_path / "run")
            assert "\n" not in str(refused.value)
            patch.undo()
    run(elsewhere, tmp_path / "run")
    run(RECIPE, tmp_path / "whole")
    ours, theirs = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_finished_run_does_not_pass_for_one_of_other_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = run(RECIPE, tmp_path / "run")
    assert run(RECIPE, tmp_path / "run") == results
    known = MemorySpec.facts
    monkeypatch.setattr(
        MemorySpec, "facts", lambda self: {**known(self), "images_fingerprint": "1"}
    )
    with pytest.raises(InputError, match="started with other training images"):
        run(RECIPE, tmp_path / "run")


def test_every_session_is_written_down(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "run")
    first = environment(folder)
    run(changed(OFTEN, engine={"device_batch": 4}), folder)
    both = environment(folder)
    assert len(both["sessions"]) == 2
    assert both["sessions"][0] == first["sessions"][0]
    assert both["started"] == first["started"]  # the first session's, as before there were several


def test_a_folder_without_sessions_goes_on(tmp_path: Path) -> None:
    """As the first version wrote it."""
    folder = interrupted(tmp_path / "run")
    old = environment(folder)
    for name in ("sessions", "started", "precision"):
        del old[name]
    (folder / "environment.json").write_text(json.dumps(old))
    run(OFTEN, folder)
    assert [s["command"] for s in environment(folder)["sessions"]] == 2 * [old["command"]]


def test_a_rate_changes_by_name_only_and_is_recorded(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "run")
    slower = changed(OFTEN, optimizer={"lr": 1e-3, "weight_decay": 0.5})
    with pytest.raises(InputError, match=r"--allow-changed optimizer\.lr"):
        run(slower, folder)
    names = ("optimizer.lr", "optimizer.weight_decay")
    run(slower, folder, allow_changed=names)
    rates = [entry["lr"] for entry in read_metrics(folder)]
    assert rates[2] > 3e-3  # made before
    assert max(rates[3:]) <= 1e-3
    assert environment(folder)["sessions"][1]["changed"] == {
        "optimizer.lr": [1e-2, 1e-3], "optimizer.weight_decay": [0.05, 0.5]
    }  # fmt: skip
    with pytest.raises(InputError, match="cannot change while a run goes on"):
        run(slower, folder, allow_changed=["schedule.batch_size"])


def test_a_run_that_diverged_says_how_to_go_on_and_does(tmp_path: Path) -> None:
    recipe = changed(RECIPE, engine={"max_bad_steps": 2})
    with pytest.raises(TrainingDiverged) as told:
        run(recipe, tmp_path / "run", spoil=SpoilAt(3, 4, 5))
    assert "--set optimizer.lr=0.005 --allow-changed optimizer.lr" in str(told.value)
    slower = changed(recipe, optimizer={"lr": 0.005})
    results = run(slower, tmp_path / "run", allow_changed=["optimizer.lr"], spoil=SpoilAt(5))
    assert results["updates"] == 8


def test_a_finished_run_says_how_to_train_it_further_and_does(tmp_path: Path) -> None:
    first = run(RECIPE, tmp_path / "run")
    longer = changed(RECIPE, schedule={"epochs": 3})
    with pytest.raises(InputError, match=r"--weights .* --allow-changed schedule\.epochs"):
        run(longer, tmp_path / "run")
    results = run(longer, tmp_path / "run", allow_changed=["schedule.epochs"])
    assert results["updates"] == 12
    assert [e["update"] for e in read_metrics(tmp_path / "run")] == list(range(1, 13))
    assert environment(tmp_path / "run")["sessions"][1]["extends"]["updates"] == first["updates"]
    assert run(longer, tmp_path / "run") == results  # complete: nothing to do


def test_a_log_file_tells_the_time_left_before_the_first_epoch_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(RECIPE, tmp_path / "run")
    said = re.findall(r"^(update 1 ·.* left|epoch \d)", capsys.readouterr().err, re.M)
    assert [line.split()[0] for line in said] == ["update", "epoch", "epoch"]
    assert re.search(r"img/s · about \d\d:\d\d:\d\d left", said[0])


@pytest.mark.parametrize("killed_at", [3, 4, 6])
def test_a_resumed_run_logs_whole_windows(killed_at: int, tmp_path: Path) -> None:
    """Line for line what the undisturbed run logs, though the kill falls inside a window."""

    def measured(folder: Path) -> list[dict[str, Any]]:
        clock = ("images_per_second", "data_wait", "memory_gb")
        return [{k: v for k, v in e.items() if k not in clock} for e in read_metrics(folder)]

    rare = dataclasses.replace(RECIPE, log_every=5)
    run(rare, tmp_path / "whole")
    often = dataclasses.replace(rare, checkpoints=Checkpoints(every_minutes=0.0))
    with pytest.raises(RuntimeError):
        run(often, tmp_path / "run", spoil=FailAt(killed_at))
    run(often, tmp_path / "run")
    assert measured(tmp_path / "run") == measured(tmp_path / "whole")


def test_a_batch_without_an_equal_division_is_refused_with_both_numbers() -> None:
    def passes(total: int, most: int, world: int = 1, mixing: str = "mixtoken") -> int:
        recipe = changed(
            RECIPE,
            schedule={"batch_size": total},
            engine={"device_batch": most},
            mixing={"kind": mixing},
        )
        return accumulation(recipe, world, most)

    assert passes(96, 20) == 6  # 16 at a time
    with pytest.raises(InputError, match=r"batch_size = 127 .*device_batch = 64"):
        passes(127, 64)
    with pytest.raises(InputError, match=r"127"):
        passes(127, 64, mixing="none")
    with pytest.raises(InputError, match=r"device_batch = 1"):
        passes(8, 1)
    assert passes(8, 1, mixing="none") == 8  # asked for, and nothing is mixed
    assert passes(8, 8, world=8, mixing="none") == 1


# -- ranks ----------------------------------------------------------------------------------------


def test_ranks_that_see_other_classes_refuse_to_train(tmp_path: Path) -> None:
    ranks = start_ranks(2, run, RECIPE, tmp_path / "run", classes_by_rank=True)
    for process in ranks:
        process.join(60)
        assert process.exitcode == 1
    assert not (tmp_path / "run").exists()


def test_when_a_rank_is_killed_the_others_end_at_once_and_the_run_goes_on_bit_for_bit(
    tmp_path: Path,
) -> None:
    for process in start_ranks(2, run, OFTEN, tmp_path / "whole"):
        process.join()
        assert process.exitcode == 0
    first, second = start_ranks(
        2, run, OFTEN, tmp_path / "run", spoil=DieAt(frozenset({5}), tmp_path, rank=1)
    )
    second.join()
    begun = time.monotonic()
    assert second.exitcode == -signal.SIGKILL
    first.join(20)
    assert time.monotonic() - begun < 10
    assert first.exitcode == 1
    for process in start_ranks(2, run, OFTEN, tmp_path / "run"):
        process.join()
        assert process.exitcode == 0
    ours, theirs = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_killed_loader_worker_ends_in_one_line(tmp_path: Path) -> None:
    import multiprocessing

    def kill(update: int, _batches: Any) -> None:
        if update == 3:
            (worker,) = multiprocessing.active_children()
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
            raise RuntimeError("as torch's loader raises")

    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    with pytest.raises(InputError, match=r"killed by signal 9 \(.*memory ran out") as told:
        run(OFTEN, tmp_path / "run", spoil=kill)
    assert "\n" not in str(told.value)


def test_a_loader_worker_that_ends_by_itself_was_not_killed(tmp_path: Path) -> None:
    import multiprocessing

    def wait_for(update: int, _batches: Any) -> None:
        if update == 3:
            (worker,) = multiprocessing.active_children()
            worker.join()
            raise RuntimeError("a worker exited")

    worker = multiprocessing.get_context("fork").Process(target=_exit_later)
    worker.start()
    with pytest.raises(RuntimeError, match="a worker exited"):
        run(OFTEN, tmp_path / "run", spoil=wait_for)
    worker.join()


def _exit_later() -> None:
    time.sleep(3)
    os._exit(1)
