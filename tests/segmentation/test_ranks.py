"""Two processes train and measure as one does; so does half precision, nearly."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from tokenlabel.api import segment

UPDATES = 4


def train(scenes: Path, output: Path, *changes: str) -> list[dict[str, Any]]:
    """The metrics of some updates of a small LV-ViT with its side layers and heads."""
    result = segment.train(
        data=scenes,
        output=output,
        recipe="lvvit_s_upernet_ade20k_smoke",
        settings=("optimizer.lr=1e-3", "schedule.warmup_lr=1e-4", *changes),
    )
    return [entry for entry in result.metrics if "loss" in entry]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{UPDATES:08d}" / "model.safetensors")


def as_ranks(count: int, function: Callable[..., Any], *arguments: Any) -> None:
    """Run a function as torchrun would (forked: torch is loaded already)."""
    fork = multiprocessing.get_context("fork")
    ranks = [
        fork.Process(target=_as_rank, args=(rank, count, function, arguments))
        for rank in range(count)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0


def _as_rank(rank: int, world: int, function: Callable[..., Any], arguments: Any) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = (rank, rank, world, world, "127.0.0.1", 40000 + os.getppid() % 20000)
    os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
    PartialState._reset_state()
    function(*arguments)


def measure(scenes: Path, run: Path, output: Path) -> None:
    segment.evaluate(
        data=scenes, checkpoint=run, output=output, scales=segment.MULTI_SCALE, flip=True
    )


def test_two_ranks_train_and_measure_as_one(scenes: Path, tmp_path: Path) -> None:
    """Two ranks of two images each against one of two passes: the same gradients and weights."""
    alone = train(scenes, tmp_path / "one")
    as_ranks(2, train, scenes, tmp_path / "two")
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    both = [entry for entry in map(json.loads, lines) if "loss" in entry]
    assert [entry["update"] for entry in alone] == list(range(1, UPDATES + 1))
    for one, two in zip(alone, both, strict=True):
        for term in ("loss", "decode", "auxiliary", "gradient_norm"):
            assert two[term] == pytest.approx(one[term], rel=1e-4), (one["update"], term)
    other = weights(tmp_path / "two")
    for name, value in weights(tmp_path / "one").items():
        if "running_" not in name and "num_batches" not in name:  # one rank's, one pass's
            assert torch.allclose(value, other[name], atol=1e-4), name
    measure(scenes, tmp_path / "one", tmp_path / "alone")
    as_ranks(2, measure, scenes, tmp_path / "one", tmp_path / "shared")
    for file in ("results.json", "table.csv"):
        text = (tmp_path / "alone" / file).read_text()
        assert (tmp_path / "shared" / file).read_text() == text


def test_half_precision_trains_as_single_does(scenes: Path, tmp_path: Path) -> None:
    full = train(scenes, tmp_path / "full")
    half = train(scenes, tmp_path / "half", "engine.precision=bf16")
    assert [entry["loss"] for entry in half] != [entry["loss"] for entry in full]
    for one, other in zip(full, half, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=0.02)
    assert all(value.dtype != torch.bfloat16 for value in weights(tmp_path / "half").values())
