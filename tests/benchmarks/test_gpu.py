"""Every stage for a GPU runs on the CPU, so that a lent GPU meets no mistake of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/gpu.py"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_stage_is_rehearsed(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(SCRIPT),
        "--rehearse",
        "--budget",
        "30m",
        "--output",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    known = json.loads((tmp_path / "stages.json").read_text())
    failed = {name: result["output"] for name, result in known.items() if result["exit"]}
    assert not failed
    assert done.returncode == 0, done.stderr
    assert set(known) == {"suite", "step", "modes", "loss", "lvvit", "engine", "input"}
    page = (tmp_path / "gpu.md").read_text()
    assert page.count("passed in") == len(known)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout.strip() == f"{len(known)} stages done; failed: none"
