"""Killed at any moment and started again, every verb ends with the bytes of an undisturbed run."""

from __future__ import annotations

import random
import shutil
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from harness import CASES, contents, differences, finish, run

WRITERS = [name for name, case in CASES.items() if case.output and not case.why_not]
QUICK = ("annotate", "labels pull")


def kill_loop(name: str, world: Path, place: Path, kills: int) -> int:
    """Kill a verb so many times, then let it end; how many kills met it alive."""
    case, rng = CASES[name], random.Random(name)
    assert case.output is not None
    undisturbed, seconds = [], 0.0
    for number in range(2):
        (place / str(number)).mkdir()
        begin = time.monotonic()
        ended = run(case.line(world, place / str(number)))
        seconds = time.monotonic() - begin
        assert ended.fault(codes=(0, 1)) is None, ended.fault(codes=(0, 1))
        undisturbed.append(contents(place / str(number) / case.output))
    met, out = 0, place / "killed"
    for number in range(kills):
        if number % 5 == 0:  # five kills of one output, then a new one
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
        words = case.line(world, out)
        met += run(words, kill_after=rng.uniform(0, seconds)).code == -9
        if number % 5 == 4 or number == kills - 1:
            fault = finish(words)
            assert fault is None, f"{name} after {number + 1} kills: {fault}"
            wrong = differences(undisturbed, contents(out / case.output))
            assert not wrong, f"{name} after {number + 1} kills differs in {wrong[:8]}"
            left = [path.name for path in out.iterdir() if path.name != case.output]
            assert not left, f"{name} leaves {left} beside its output"
    return met


@pytest.mark.parametrize("name", QUICK)
def test_quick_verbs_survive_kills(name: str, quick_world: Path, tmp_path: Path) -> None:
    kill_loop(name, quick_world, tmp_path, kills=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_every_verb_that_writes_survives_kills(name: str, world: Path, tmp_path: Path) -> None:
    met = kill_loop(name, world, tmp_path, kills=10 if CASES[name].slow else 20)
    print(f"{name}: {met} kills met it alive")
