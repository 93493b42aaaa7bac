"""Why a run diverged: the first layer whose output is not finite, and its images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.training.workbench import RECIPE, MemoryBatches, make_task

from tokenlabel.training.diagnosis import culprits, keep_batch
from tokenlabel.training.ranks import Ranks
from tokenlabel.training.trainer import Trainer


@pytest.fixture
def trainer() -> Trainer:
    ranks = Ranks(RECIPE.engine)
    return Trainer(make_task(RECIPE), RECIPE, ranks, updates_per_epoch=4)


def test_the_first_layer_is_named_not_those_after_or_around_it(trainer: Trainer) -> None:
    batches = next(MemoryBatches(RECIPE, trainer.ranks).epoch(0, 0))
    with torch.no_grad():
        trainer.student.get_parameter("backbone.blocks.1.mlp.fc1.bias")[3] = float("nan")
    assert trainer.update(batches, 0).skipped
    hooks = [len(module._forward_hooks) for module in trainer.student.modules()]
    trainer.student.eval()  # as a validation leaves it
    found = culprits(trainer, batches, 0)
    assert trainer.student.training  # the passes are those of the update
    assert found == "first the output of backbone.blocks.1.mlp.fc1 (Linear) was not"
    assert hooks == [len(module._forward_hooks) for module in trainer.student.modules()]


def test_a_loss_that_is_not_finite_by_its_targets_is_named(trainer: Trainer) -> None:
    batches = next(MemoryBatches(RECIPE, trainer.ranks).epoch(0, 0))
    assert batches[0].target is not None
    batches[0].target.excess[0, 2, 0] = float("inf")
    trainer.update(batches, 0)
    found = culprits(trainer, batches, 0)
    assert found is not None
    assert "the loss" in found
    assert "the output of every layer was" in found


def test_where_all_is_finite_nothing_is_named(trainer: Trainer) -> None:
    batches = next(MemoryBatches(RECIPE, trainer.ranks).epoch(0, 0))
    trainer.update(batches, 0)
    assert culprits(trainer, batches, 0) is None


def test_the_batch_is_kept_with_its_cause(trainer: Trainer, tmp_path: Path) -> None:
    batches = next(MemoryBatches(RECIPE, trainer.ranks).epoch(0, 0))
    file = keep_batch(tmp_path, 0, 7, batches, "because")
    assert json.loads(file.read_text()) == {
        "update": 7, "cause": "because", "keys": list(batches[0].keys)
    }  # fmt: skip
    kept = load_file(file.with_suffix(".safetensors"))
    assert torch.equal(kept["0.images"], batches[0].images)
    assert torch.equal(kept["0.target.excess"], batches[0].target.excess)
