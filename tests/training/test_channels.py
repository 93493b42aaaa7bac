"""Images of other channels and of more than 8 bits, from the files to the exported program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tokenlabel as tl
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.export.programs import export_torch
from tokenlabel.export.timm_folder import export_timm
from tokenlabel.models import DenseModel
from tokenlabel.runs.results import TrainResult
from tokenlabel.training import loop

SIDE = 32
LEVELS = (30_000, 30_100)  # of two classes: one byte holds both
STUDENT = {"model": "test_vit", "image_size": SIDE, "recipe": "starter", "seed": 0}


@pytest.fixture(autouse=True)
def _without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes longer than these runs."""
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)


def save(file: Path, values: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".npy":
        np.save(file, values)
    else:
        Image.fromarray(values).save(file)
    return file


@pytest.fixture(scope="module")
def gray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 16-bit gray images that only the lower bits tell apart."""
    root = tmp_path_factory.mktemp("gray")
    rng = np.random.default_rng(0)
    for number, level in enumerate(LEVELS):
        for i in range(12):
            values = level + rng.integers(0, 20, (SIDE, SIDE))
            values[0, 0] = 65535
            save(root / "ab"[number] / f"{i}.png", values.astype(np.uint16))
    return root


@pytest.fixture(scope="module")
def bands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four channels of bytes that only the fourth tells apart."""
    root = tmp_path_factory.mktemp("bands")
    rng = np.random.default_rng(0)
    for number, level in enumerate((60, 190)):
        for i in range(12):
            values = rng.integers(0, 256, (SIDE, SIDE, 4))
            values[..., 3] = level + rng.integers(-20, 20, (SIDE, SIDE))
            save(root / "ab"[number] / f"{i}.npy", values.astype(np.uint8))
    return root


def train(data: Path, output: Path, *settings: str, **options: Any) -> TrainResult:
    choices: dict[str, Any] = {
        **STUDENT, "epochs": 1, "batch_size": 8, "workers": 0, "device": "cpu",
        "settings": ("data.holdout=0.25", "engine.precision=fp32", *settings), **options,
    }  # fmt: skip
    return tl.train(data=str(data), output=output, **choices)


def judged(data: Path, run: Path) -> float:
    return tl.evaluate(data=data, checkpoint=run, workers=0, device="cpu").top1


def taught(
    data: Path, folder: Path, in_chans: int, channels: Sequence[int] = (), epochs: int = 1
) -> Path:
    tl.teach(
        data=str(data), output=folder, model="test_resnet", pretrained=False, image_size=SIDE,
        in_chans=in_chans, channels=channels, epochs=epochs, batch_size=9, lr=1e-2, device="cpu",
        dtype="float32", min_scale=0.9,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("in_chans", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_16_bits_reach_the_student(gray: Path, tmp_path: Path, in_chans: int) -> None:
    run = tmp_path / "run"
    done = train(
        gray, run, "model.mean=[" + ",".join(["0.4585"] * in_chans) + "]",
        "model.std=[" + ",".join(["0.001"] * in_chans) + "]",
        "augment.policy=null", "augment.erasing=0", "ema.decay=null", "schedule.warmup_epochs=0",
        in_chans=in_chans, supervision="labels", mix="none", epochs=4, lr=0.02,
    )  # fmt: skip
    assert done.results["best_top1"] == 1.0
    assert judged(gray, run) == 1.0
    student = tl.load(run)
    assert student.preprocessing.channels == in_chans
    assert student.decode_rules.deep
    answers = student.predict([gray / "a" / "0.png", gray / "b" / "0.png"])
    assert [found.label for found in answers] == ["a", "b"]
    levels = np.full((SIDE, SIDE, in_chans), LEVELS[1] / 257, np.float32)
    assert student.predict(levels)[0].label == "b"
    export_timm(student, tmp_path / "timm")
    folder = tl.load(tmp_path / "timm")
    assert folder.decode_rules == student.decode_rules
    (alone,) = folder.predict(gray / "b" / "0.png")
    assert alone.confidence == pytest.approx(answers[1].confidence, abs=1e-4)
    with pytest.raises(InputError, match=rf"float32 arrays \[H, W, {in_chans}\]"):
        student.predict(levels[..., :0])


def test_a_student_of_four_channels_from_end_to_end(bands: Path, tmp_path: Path) -> None:
    teacher = taught(bands, tmp_path / "teacher", 4, epochs=4)
    store = tl.annotate(data=str(bands), output=tmp_path / "labels", annotator=str(teacher))
    assert (store.labeled, store.left_out) == (24, ())
    assert store.dataset["decode"]["channels"] == 4
    run = tmp_path / "run"
    train(
        bands, run, "schedule.warmup_epochs=0", "ema.decay=null", in_chans=4, epochs=4, lr=0.02,
        labels=str(tmp_path / "labels"), cache="ram",
    )  # fmt: skip
    assert judged(bands, run) > 0.9
    student = tl.load(run)
    assert student.preprocessing.mean == (pytest.approx(0.449, abs=0.1),) * 4
    assert student.predict(np.zeros((SIDE, SIDE, 4), np.uint8))[0].error is None
    (wrong,) = student.predict(save(tmp_path / "rgb.png", np.zeros((SIDE, SIDE, 3), np.uint8)))
    assert "has 3 channels, and the model takes 4" in (wrong.error or "")
    export_timm(student, tmp_path / "timm")
    images = torch.randint(0, 256, (2, 4, SIDE, SIDE), dtype=torch.uint8)
    torch.testing.assert_close(
        tl.load(tmp_path / "timm").probabilities(images), student.probabilities(images)
    )


@pytest.mark.slow
def test_a_program_of_four_channels(tmp_path: Path) -> None:
    shown = Preprocessing((SIDE, SIDE), 1.0, "bicubic", (0.5,) * 4, (0.2,) * 4)
    student = Classifier(
        DenseModel("test_vit", 2, in_chans=4).eval(), shown, ("a", "b"), True, {"model": "test_vit"}
    )
    assert export_torch(student, tmp_path / "program.pt2") < 1e-4


def test_channels_are_chosen(bands: Path, tmp_path: Path) -> None:
    """The annotator sees three of the four, the student another one."""
    teacher = taught(bands, tmp_path / "teacher", 3, (3, 1, 0))
    labels = tmp_path / "labels"
    store = tl.annotate(data=str(bands), output=labels, annotator=str(teacher), channels=(3, 1, 0))
    assert store.labeled == 24
    run = tmp_path / "run"
    train(
        bands, run, "schedule.warmup_epochs=0", "ema.decay=null", in_chans=1, channels=(3,),
        labels=str(labels), epochs=4, lr=0.02,
    )  # fmt: skip
    assert judged(bands, run) > 0.9
    assert tl.load(run).decode_rules.chosen == (3,)
    answer = tl.predict(images=bands / "a" / "0.npy", checkpoint=run, workers=0, device="cpu")
    assert answer.predictions[0].label == "a"


def test_what_does_not_fit_is_one_line(bands: Path, gray: Path, tmp_path: Path) -> None:
    wrong = "has 4 channels, and the model takes 3"
    with pytest.raises(InputError, match=wrong):
        train(bands, tmp_path / "a", supervision="labels")
    with pytest.raises(InputError, match=wrong):
        taught(bands, tmp_path / "a", 3)
    with pytest.raises(InputError, match="set in_chans=1"):
        train(gray, tmp_path / "b", "model.kwargs={in_chans: 1}", supervision="labels")
    with pytest.raises(InputError, match="has channels 0 to 3"):
        train(bands, tmp_path / "c", supervision="labels", channels=(1, 2, 4))
    annotator = {"kind": "classifier", "model": "test_resnet", "pretrained": False}
    with pytest.raises(InputError, match=wrong):
        tl.annotate(
            data=str(bands), output=tmp_path / "a", annotator=annotator | {"keep_classes": True}
        )
    assert not (tmp_path / "a").exists()


def test_labels_of_augmented_views(gray: Path, bands: Path, tmp_path: Path) -> None:
    """An annotator of RGB labels the views of a gray student, and not those of four channels."""
    teacher = str(taught(gray, tmp_path / "teacher", 3))
    options: dict[str, Any] = {"annotator": teacher, "online": True, "max_steps": 1}
    train(gray, tmp_path / "run", in_chans=1, **options)
    with pytest.raises(InputError, match="takes images of 3 channels, the student of 4"):
        train(bands, tmp_path / "b", in_chans=4, **options)
    assert not (tmp_path / "b").exists()
