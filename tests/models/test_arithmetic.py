"""`auto` on a CPU: the quicker arithmetic, found by trying, and only where a trial pays."""

from __future__ import annotations

import pytest
import torch

from tokenlabel.models import arithmetic
from tokenlabel.models.arithmetic import autocast, chosen_arithmetic, quicker_arithmetic

CPU = torch.device("cpu")


def times(monkeypatch: pytest.MonkeyPatch, half: float) -> list[tuple[int, torch.dtype]]:
    """A clock by which bfloat16 takes `half` as long; returns the steps that it times."""
    timed = []

    def seconds(_step: object, count: int, dtype: torch.dtype) -> float:
        timed.append((count, dtype))
        return count * (half if dtype == torch.bfloat16 else 1.0)

    monkeypatch.setattr(arithmetic, "_seconds", seconds)
    return timed


@pytest.mark.parametrize(
    ("half", "chosen"),
    [(0.2, torch.bfloat16), (0.8, torch.float32), (9.0, torch.float32)],
    ids=["quicker", "a tie", "slower"],
)
def test_the_quicker_is_taken_and_float32_where_they_tie(
    monkeypatch: pytest.MonkeyPatch, half: float, chosen: torch.dtype, capsys
) -> None:
    timed = times(monkeypatch, half)
    assert quicker_arithmetic(lambda *_: None, 64) == chosen
    assert ((64, torch.bfloat16) in timed) == (
        half < 4
    )  # hopeless with one image, no more is tried
    said = capsys.readouterr().err
    assert said.startswith(f"precision: {str(chosen)[6:]} (")
    assert said.count("\n") == 1


def test_a_step_is_timed_by_the_work_that_it_does() -> None:
    rows = torch.rand(64, 256, 256)

    def step(count: int, dtype: torch.dtype) -> None:  # bfloat16 has ten times as much to do
        for _ in range(1 if dtype == torch.float32 else 10):
            rows[:count] @ rows[:count]

    assert quicker_arithmetic(step, 64) == torch.float32
    assert quicker_arithmetic(lambda n, d: step(n, _other(d)), 64) == torch.bfloat16


def _other(dtype: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if dtype == torch.float32 else torch.float32


def test_few_images_and_a_users_word_need_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        pytest.fail("tried")

    assert chosen_arithmetic("auto", CPU, never, batch=64, images=99) == torch.float32
    assert chosen_arithmetic("float16", CPU, never, batch=64, images=10**6) == torch.float16
    times(monkeypatch, 0.2)
    many = chosen_arithmetic("auto", CPU, lambda *_: None, batch=64, images=100)
    assert many == torch.bfloat16


def test_float32_changes_nothing() -> None:
    x = torch.rand(4, 8)
    with autocast(CPU, torch.float32):
        assert torch.equal(x @ x.T, x @ x.T)
        assert not torch.is_autocast_enabled("cpu")
    with autocast(CPU, torch.bfloat16):
        assert (x @ x.T).dtype == torch.bfloat16
