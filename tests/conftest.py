"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings

# the same examples in every run; `--hypothesis-profile default` explores others
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

RELEASED = Path(__file__).resolve().parent / "fixtures" / "released"
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests run several at once: one thread each keeps two cores busy and results repeatable."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def released_numbers() -> Path:
    """Folder of what the released code computes (see its README)."""
    return RELEASED


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference inputs and outputs that developers keep beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("needs the developers' reference data (../shared), which is not here")
    return SHARED
