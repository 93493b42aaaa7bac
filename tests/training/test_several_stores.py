"""A head for each label store: on any number of ranks, and after any interruption."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from words_world import make_world, train_both
from workbench import processes, start_ranks, weights


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images and stores; `whole` is a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    train_both(folder, folder / "whole")
    return folder


def test_a_killed_run_goes_on_bit_for_bit(world: Path, tmp_path: Path) -> None:
    for killed_at, code in ((2, -signal.SIGKILL), (None, 0)):
        arguments: tuple[Any, ...] = (world, tmp_path / "run", killed_at)
        process = processes().Process(target=train_both, args=arguments)
        process.start()
        process.join()
        assert process.exitcode == code
    ours, theirs = weights(tmp_path / "run"), weights(world / "whole")
    assert ours.keys() == theirs.keys()
    assert any("more_heads" in name for name in theirs)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_two_ranks_equal_one(world: Path, tmp_path: Path) -> None:
    for process in start_ranks(2, train_both, world, tmp_path / "run"):
        process.join()
        assert process.exitcode == 0
    ours, theirs = weights(tmp_path / "run"), weights(world / "whole")
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5, msg=name)
