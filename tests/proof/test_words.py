"""The proof of visual words runs from tars to tables, on tiny images."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from tokenlabel.compare.record import Record, write_record

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "--images", "20", "--epochs", "1", "--teacher-epochs", "1", "--seeds", "1", "--students",
    "lvvit", "--words", "8", "--annotated", "64", "--taught", "48", "--workers", "2",
    "--cache", "device", "--set", "schedule.batch_size=8", "engine.device_batch=8",
    "schedule.max_steps=2", "engine.precision=fp32", "--set-camvid", "schedule.updates=2",
    "schedule.batch_size=2", "schedule.warmup_updates=1", "augment.crop=[32, 32]", "test.short_side=48",
)  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Where the script runs: tars of 4 classes, 20 and 4 images each, 4 scenes, and its page."""
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
    for part in ("training", "validation"):
        for kind in ("images", "annotations"):
            (tmp_path / "camvid" / kind / part).mkdir(parents=True)
        for i in range(2):
            mask = np.repeat(np.arange(4, dtype=np.uint8), 12)[:, None].repeat(64, 1)
            image = (60 * mask[..., None] + random.integers(40, size=(48, 64, 3))).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "camvid" / "images" / part / f"{i}.png")
            Image.fromarray(mask).save(tmp_path / "camvid" / "annotations" / part / f"{i}.png")
    (tmp_path / "camvid" / "classes.json").write_text(json.dumps(["wall", "grass", "pool"]))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "words.md").write_bytes((ROOT / "docs" / "words.md").read_bytes())
    return tmp_path


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "proof"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("scripts")
def test_records_of_other_options_are_refused() -> None:
    import words
    from words_tables import RESULTS

    options = {"epochs": 10, "set": ["schedule.batch_size=8"]}
    for seed in range(2):
        write_record(
            RESULTS / f"vit-words-{seed}.json",
            Record("vit, words", seed, 1.0, details={"options": options}),
        )
    words.require_same_options(options)
    with pytest.raises(
        SystemExit, match=r"vit-words-0.json was made with epochs=10: give the same"
    ):
        words.require_same_options(options | {"epochs": 20})


@pytest.mark.usefixtures("scripts")
def test_features_are_those_of_the_size_that_is_annotated() -> None:
    """Regression is shown what words are made of: each view at the annotator's size."""
    import feature_regression

    backbone = SimpleNamespace(blocks=[nn.Identity() for _ in range(4)], embed_dim=8)
    student = nn.Module()
    student.backbone = backbone
    plain = SimpleNamespace(student=student, rules=None, num_classes=2, normalize=None)
    teacher = timm.create_model("test_resnet").eval()
    task = feature_regression.RegressionTask(plain, teacher, 128, 1.0)
    views = torch.full((2, 3, 64, 64), 255, dtype=torch.uint8)
    seen = task._stages(views)
    wanted = feature_regression.stages(teacher, 128)
    assert [stage.shape[1:] for stage in seen] == [stage.shape[1:] for stage in wanted]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_both_parts_leave_records_and_tables(desk: Path) -> None:
    for part in ("mechanism", "few"):
        command = [
            sys.executable, str(ROOT / "proof" / "words.py"), "--data", "data", "--other",
            "data", "--camvid", "camvid", "--part", part, *TINY,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=desk, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    records = list((desk / "proof" / "words").glob("lvvit-*.json"))
    assert len(records) == 7 + 6 + 3 + 3  # all labels are in both parts
    assert set(json.loads((desk / "proof" / "words" / "bytes.json").read_text())) == {
        "token labels", "words", "token labels and words", "features"
    }  # fmt: skip
    page = (desk / "docs" / "words.md").read_text()
    for line in (
        "words - features",
        "a tenth after words - ground truth",
        "other data after words",
        "scenes after words - scenes after nothing",
    ):
        assert f"| {line} |" in page
    other = subprocess.run([*command, "--patch", "16"], cwd=desk, capture_output=True, text=True)
    assert other.returncode == 1
    assert "made with patch=8: give the same options" in other.stderr
