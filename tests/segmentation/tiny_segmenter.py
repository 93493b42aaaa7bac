"""A small network that is trained on drawn scenes in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokenlabel.api import segment
from tokenlabel.cli.main import main as command_line

QUICK = (
    "augment.crop=[32, 32]",
    "augment.color=false",
    "test.short_side=48",
    "test.window=null",
    "model.kwargs={channels: [8, 8, 16, 16], stem_width: 8}",
    "model.channels=8",
    "schedule.batch_size=4",
    "schedule.warmup_updates=2",
    "loss.class_balance=0",
    "optimizer.name=adamw",
    "optimizer.lr=0.01",
    "trackers=[]",
    "data.workers=0",
    "engine.precision=fp32",
)


def train(scenes: Path, output: Path, updates: int, *more: str) -> dict[str, Any]:
    result = segment.train(
        data=scenes,
        output=output,
        recipe="camvid_cpu",
        updates=updates,
        settings=(*QUICK, *more),
    )
    return result.results


def main(arguments: list[str], expected: int) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line(arguments)
    assert ended.value.code == expected
