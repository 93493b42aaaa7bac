"""torchrun itself: it starts the ranks, and starts them again when one has died."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from workbench import RECIPE, run, weights

from tokenlabel.runs.results import read_metrics

SCRIPT = """
import dataclasses, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from workbench import OFTEN, DieAt, run

folder = Path(sys.argv[2])
run(OFTEN, folder / "run", spoil=DieAt(frozenset({5}), folder, rank=1))
"""


@pytest.mark.slow
def test_a_killed_rank_is_started_again_and_the_run_ends_as_undisturbed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "--max-restarts", "2", str(tmp_path / "script.py"), str(Path(__file__).parent), str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed-1-5").exists()
    assert "continuing" in done.stderr
    run(RECIPE, tmp_path / "whole")
    losses = [
        [entry["loss"] for entry in read_metrics(tmp_path / name)] for name in ("run", "whole")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert weights(tmp_path / "run").keys() == weights(tmp_path / "whole").keys()
