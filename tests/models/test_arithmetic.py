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
    [(0.2, torch.bfloat16), (0.7, torch.bfloat16), (0.9, torch.float32), (9.0, torch.float32)],
    ids=["quicker", "clearly quicker", "a tie", "slower"],
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


def test_it_is_tried_on_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    threads = set()
    try:
        quicker_arithmetic(lambda *_: threads.add(torch.get_num_threads()), 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads <= {1}  # not tried at all where a product says enough


@pytest.mark.parametrize("units", [True, False])
def test_a_network_is_tried_only_where_a_product_is_quicker(
    monkeypatch: pytest.MonkeyPatch, units: bool
) -> None:
    tried = []
    monkeypatch.setattr(arithmetic, "_product", lambda _, dtype: _work(dtype, slow=not units))
    found = quicker_arithmetic(
        lambda count, dtype: (tried.append(count), _work(dtype, slow=False)), 2
    )
    assert (found, bool(tried)) == ((torch.bfloat16, True) if units else (torch.float32, False))


def _work(dtype: torch.dtype, *, slow: bool) -> None:
    """Ten times as much to do in one arithmetic as in the other."""
    rows = torch.rand(64, 256, 256)
    for _ in range(10 if slow == (dtype == torch.bfloat16) else 1):
        rows @ rows


def test_few_images_and_a_users_word_need_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        pytest.fail("tried")

    for device in (CPU, torch.device("cuda")):
        assert chosen_arithmetic("auto", device, never, batch=64, images=99) == torch.float32
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
