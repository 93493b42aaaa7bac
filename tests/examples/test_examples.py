"""The examples of training loops run, on 20 images, and what they train can be asked."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import tokenlabel as tl

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = {"model": "test_vit", "size": 32}


@pytest.fixture
def photos(tmp_path: Path) -> tuple[str, str]:
    """20 photographs in two classes and two parts, and a store that labels those to train on."""
    rng = np.random.default_rng(0)
    with tl.LabelStoreWriter(tmp_path / "labels", num_classes=2) as writer:
        for i in range(20):
            name, part = ("ant", "bee")[i % 2], "val" if i >= 16 else "train"
            path = tmp_path / "photos" / part / name / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (40, 48, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(path)
            if part == "train":
                label = tl.LabelMap.from_logits(torch.randn(2, 3, 3), 2, tl.Box())
                writer.add(f"{name}/{i}.jpg", label)
    return str(tmp_path / "photos"), str(tmp_path / "labels")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    names = [file.stem for file in EXAMPLES.glob("*.py")]

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in names:
        sys.modules.pop(name, None)


def test_every_example_is_short_and_tested() -> None:
    tested = Path(__file__).read_text()
    for file in EXAMPLES.glob("*.py"):
        lines = len(file.read_text().splitlines())
        assert lines < 80, f"{file.name} has {lines} lines"
        assert ast.get_docstring(ast.parse(file.read_text()))
        assert f'example("{file.stem}")' in tested, file.name


def test_plain_pytorch(photos, example, tmp_path, capsys) -> None:
    student = example("plain_pytorch").train(*photos, epochs=1, batch_size=8, workers=0, **SMALL)
    assert "epoch 0: loss" in capsys.readouterr().out
    torch.save(student.state_dict(), tmp_path / "student.pth")
    found = tl.load(tmp_path / "student.pth", "test_vit", device="cpu").predict(photos[0])
    assert len(found) == 20
    assert all(prediction.label in ("0", "1") for prediction in found)


def test_a_sample_and_its_view_show_the_same_part(photos, example) -> None:
    """A picture that is bright on the left half alone, and a label map that says so."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, :20] = 255
    augment = tl.Augmentation(interpolation="bilinear", scale=(0.2, 0.6))
    torch.manual_seed(0)
    logits = torch.full((2, 1, 20), -20.0)
    logits[1, 0, :10] = logits[0, 0, 10:] = 20.0
    label = tl.LabelMap.from_logits(logits, 2, tl.Box())
    for _ in range(20):
        sample, view = augment(Image.fromarray(pixels), 32)
        target = tl.token_targets([label], [view], (8, 8), smoothing=0)
        bright = target.dense()[0, 1:, 1].reshape(8, 8)
        seen = sample.float().mean(0).reshape(8, 4, 8, 4).mean((1, 3)) / 255
        torch.testing.assert_close(seen, bright, atol=0.16, rtol=0)


def test_timm_task(photos, example, capsys) -> None:
    task = example("timm_task").train(*photos, epochs=2, batch_size=8, workers=0, **SMALL)
    assert "epoch 1: loss" in capsys.readouterr().out
    assert task.has_ema()


@pytest.mark.slow
def test_hugging_face_trainer(photos, example, tmp_path) -> None:
    pytest.importorskip("transformers", reason="needs the extra seg: transformers")
    trainer = example("hf_trainer").train(
        *photos, output=str(tmp_path / "hf"), num_train_epochs=1, use_cpu=True, report_to=[],
        per_device_train_batch_size=8, **SMALL,
    )  # fmt: skip
    assert trainer.state.global_step == 2
    assert 0 <= trainer.evaluate()["eval_accuracy"] <= 1


@pytest.mark.slow
def test_lightning(photos, example, tmp_path) -> None:
    pytest.importorskip("lightning", reason="needs lightning, which nothing else here uses")
    trainer = example("lightning_module").train(
        *photos, batch_size=8, workers=0, max_epochs=1, accelerator="cpu", logger=False,
        default_root_dir=tmp_path, enable_progress_bar=False, **SMALL,
    )  # fmt: skip
    assert trainer.global_step == 2
    assert 0 <= float(trainer.callback_metrics["val/accuracy"]) <= 1
