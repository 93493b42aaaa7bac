"""The benchmark of visual words runs from tars to tables, on tiny images."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "--images", "20", "--epochs", "1", "--teacher-epochs", "1", "--seeds", "1", "--students",
    "lvvit", "--words", "8", "--annotated", "64", "--workers", "2", "--cache", "device", "--set",
    "schedule.batch_size=8", "engine.device_batch=8", "schedule.max_steps=2",
    "engine.precision=fp32",
)  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Where the script runs: tars of 4 classes, 20 and 4 images each, and its page."""
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for part, count in (("train", 20), ("val", 4)):
        with tarfile.open(tmp_path / "data" / f"{part}.tar", "w") as tar:
            for label in range(4):
                for i in range(count):
                    content = io.BytesIO()
                    pixels = random.integers(64, size=(64, 64, 3)) + 48 * label
                    Image.fromarray(pixels.astype(np.uint8)).save(content, "PNG")
                    info = tarfile.TarInfo(f"class{label}/{i}.png")
                    info.size = len(content.getvalue())
                    tar.addfile(info, io.BytesIO(content.getvalue()))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "words.md").write_bytes((ROOT / "docs" / "words.md").read_bytes())
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_both_parts_leave_records_and_tables(desk: Path) -> None:
    for part in ("mechanism", "few"):
        command = [
            sys.executable, str(ROOT / "benchmarks" / "bench_words.py"), "--data", "data", "--other",
            "data", "--part", part, *TINY,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=desk, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    records = list((desk / "proof" / "words").glob("lvvit-*.json"))
    assert len(records) == 5 + 5 + 3  # all labels are in both parts
    assert set(json.loads((desk / "proof" / "words" / "bytes.json").read_text())) == {
        "token labels", "words", "token labels and words", "features"
    }  # fmt: skip
    page = (desk / "docs" / "words.md").read_text()
    for line in (
        "words - features",
        "a tenth after words - ground truth",
        "other data after words",
    ):
        assert f"| {line} |" in page
