"""One world for all tests of a process: made once, never written to by a test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import harness


@pytest.fixture(scope="session")
def quick_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images, the label stores and a run."""
    torch.set_num_threads(1)
    harness.preload()
    return harness.build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def world(quick_world: Path) -> Path:
    """All of it."""
    harness.build_slow(quick_world)
    return quick_world
