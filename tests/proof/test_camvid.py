"""The plan for CamVid runs from scenes to tables and kept networks, on tiny scenes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokenlabel.api import segment

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["wall", "grass", "pool"]
TINY = (
    "schedule.batch_size=2", "schedule.updates=3", "schedule.warmup_updates=1",
    "augment.crop=[32, 32]", "test.short_side=48", "engine.precision=fp32",
)  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Where the script runs: 16 training scenes, 2 of them with masks among the few, and its page."""
    random = np.random.default_rng(0)
    for part, count in (("training", 16), ("validation", 2)):
        for kind in ("images", "annotations"):
            (tmp_path / "camvid" / kind / part).mkdir(parents=True)
        for i in range(count):
            mask = np.repeat(np.arange(4, dtype=np.uint8), 12)[:, None].repeat(64, 1)
            image = (60 * mask[..., None] + random.integers(40, size=(48, 64, 3))).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "camvid" / "images" / part / f"{i}.png")
            Image.fromarray(mask).save(tmp_path / "camvid" / "annotations" / part / f"{i}.png")
    (tmp_path / "camvid" / "classes.json").write_text(json.dumps(CLASSES))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "segmentation.md").write_bytes(
        (ROOT / "docs" / "segmentation.md").read_bytes()
    )
    return tmp_path


@pytest.mark.parametrize("without", [[], ["--without", "a", "b"]])
def test_each_seed_needs_a_student_of_either_side(desk: Path, without: list[str]) -> None:
    command = [
        sys.executable, str(ROOT / "proof" / "camvid.py"), "--data", "camvid", "--seeds", "0",
        "--with-tokens", "a", *without,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=desk, capture_output=True, text=True)
    assert done.returncode == 2
    assert "need one student for each of --seeds" in done.stderr
    assert not (desk / "proof").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_masks_and_students_to_tables_and_weights(desk: Path) -> None:
    student = str(next((ROOT / "proof" / "weights").glob("cifar10-*-vit-labels-*")))
    command = [
        sys.executable, str(ROOT / "proof" / "camvid.py"), "--data", "camvid", "--workers", "2",
        "--seeds", "0", "--with-tokens", student, "--without", student, "--of-masks", "--set", *TINY,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=desk, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    records = [json.loads(file.read_text()) for file in (desk / "proof/camvid").glob("*.json")]
    assert len(records) == 3 + 2 * 4
    assert {len(record["details"]["scenes"]) for record in records} == {2}
    page = (desk / "docs" / "segmentation.md").read_text()
    assert "| 46 masks + soft labels - 46 masks, seeds 0 |" in page
    assert "| token labels - labels only, seeds 0 |" in page
    assert "| token labels of masks - random weights, seeds 0 |" in page
    assert page.count("<!-- made by proof/camvid.py -->") == 1
    (kept,) = (desk / "proof" / "weights").glob("camvid-367-masks-0")
    segment.predict(
        images=desk / "camvid" / "images" / "validation", checkpoint=kept / "model.safetensors",
        recipe=str(kept / "recipe.yaml"), output=desk / "predicted",
    )  # fmt: skip
    assert set(np.unique(np.asarray(Image.open(desk / "predicted/labels/0.png")))) <= {1, 2, 3}
    card = (kept / "README.md").stat().st_mtime_ns
    shutil.rmtree(desk / "runs/camvid/student-of-masks")  # as where records came with the code
    again = subprocess.run(command, cwd=desk, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "seed 0:" not in again.stdout  # nothing was trained again
    assert (kept / "README.md").stat().st_mtime_ns == card  # nor measured
    other = subprocess.run(
        [*command, "optimizer.lr=0.001"], cwd=desk, capture_output=True, text=True
    )
    assert other.returncode == 1
    assert "is of another recipe" in other.stderr
