"""`engine.device_batch=auto`: half as many images each time that memory runs out, the same result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.workbench import RECIPE, MemoryBatches, make_task, run, weights

from tokenlabel.errors import InputError
from tokenlabel.recipes import get
from tokenlabel.training import device_batch
from tokenlabel.training.device_batch import fitting_batch
from tokenlabel.training.ranks import Ranks

AUTO = dataclasses.replace(RECIPE, engine=dataclasses.replace(RECIPE.engine, device_batch="auto"))


def short_of_memory(task: torch.nn.Module, most: int) -> None:
    """Let the task run out of memory on more than `most` images."""

    def full(_task: Any, given: tuple[Any, ...]) -> None:
        if len(given[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    task.register_forward_pre_hook(full)


def count(task: torch.nn.Module, *_: object) -> None:
    task.get_buffer("seen").add_(1)


@pytest.mark.parametrize(("most", "found"), [(8, 8), (7, 4), (4, 4), (3, 2)])
def test_a_batch_is_halved_until_it_fits_and_the_task_is_left_as_it_was(
    most: int, found: int
) -> None:
    ranks, task = Ranks(AUTO.engine), make_task(AUTO)
    task.register_buffer("seen", torch.zeros(1))
    task.register_forward_hook(count)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    short_of_memory(task, most)
    assert fitting_batch(task, MemoryBatches(AUTO, ranks), ranks) == found
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(parameter.grad is None for parameter in task.parameters())


def test_a_model_that_is_too_large_is_named() -> None:
    ranks, task = Ranks(AUTO.engine), make_task(AUTO)
    short_of_memory(task, 1)
    with pytest.raises(InputError, match="does not hold two images"):
        fitting_batch(task, MemoryBatches(AUTO, ranks), ranks)


def test_on_a_cpu_auto_is_a_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Ranks(get("finetune").engine).device_batch in (64, 2**63 - 1)
    monkeypatch.setattr(device_batch, "fitting_batch", lambda *_: pytest.fail("tried"))
    run(AUTO, tmp_path / "auto")
    run(RECIPE, tmp_path / "fixed")
    ours, theirs = weights(tmp_path / "auto"), weights(tmp_path / "fixed")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
