"""`tokenlabel predict` and `tl.load`: what is read, what is answered, and how it is written."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import tokenlabel as tl
from tokenlabel.api.predict import load, predict
from tokenlabel.cli.main import main
from tokenlabel.data.pictures import open_pictures
from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.evaluation.predictions import Prediction
from tokenlabel.models import DenseModel
from tokenlabel.runs.open import Run
from tokenlabel.runs.recipe import Recipe
from tokenlabel.supervision import METHODS


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of three classes, tokens included, as a file of weights."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "student.safetensors"
    save_file(DenseModel("test_vit", 3, img_size=32).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def student(weights: Path) -> Classifier:
    return load(weights, "test_vit", device="cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures, of which one is in a folder of its own, a note and a damaged file."""
    rng = np.random.default_rng(0)
    for name in ("photos/a.png", "photos/b.jpg", "photos/deep/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "photos" / "note.txt").write_text("no picture")
    (tmp_path / "photos" / "z.png").write_bytes(b"damaged")
    return tmp_path / "photos"


def names(*places: object) -> list[str]:
    return [key for source in open_pictures([str(p) for p in places]) for key in source.keys]


def similar(one: Prediction, other: Prediction) -> bool:
    """Whether two answers differ in rounding alone, as those of other batch sizes do."""
    confidences = [[guess.confidence for guess in found.top] for found in (one, other)]
    assert confidences[0] == pytest.approx(confidences[1], abs=1e-6)
    return [g.number for g in one.top] == [g.number for g in other.top] and one.error == other.error


def test_pictures_are_found_wherever_they_lie(photos: Path) -> None:
    everything = [str(photos / name) for name in ("a.png", "b.jpg", "deep/c.png", "z.png")]
    assert names(photos) == everything
    assert names(photos / "b.jpg", photos / "a.png") == everything[1::-1]
    assert names(f"{photos}/*.jpg") == everything[1:2]
    assert names(f"{photos}/*") == everything  # a folder that matches is walked through
    assert names(photos, photos / "a.png") == everything  # none twice
    with tarfile.open(photos.parent / "photos.tar", "w") as archive:
        archive.add(photos / "a.png", "cat/a.png")
    assert names(photos / "a.png", photos.parent / "photos.tar") == [everything[0], "cat/a.png"]
    with pytest.raises(InputError, match="does not exist"):
        open_pictures([str(photos / "d.png")])
    with pytest.raises(InputError, match="no file matches"):
        open_pictures([f"{photos}/*.gif"])


def test_pixels_paths_and_batches_get_the_same_answers(student: Classifier, photos: Path) -> None:
    pixels = np.asarray(Image.open(photos / "a.png"))
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    given: list[Any] = [
        photos / "a.png", pixels, Image.fromarray(pixels), tensor, tensor[None], [pixels, pixels]
    ]  # fmt: skip
    first, *others = [student.predict(images) for images in given]
    for found in others:
        assert similar(found[0], first[0])
    assert (first[0].image, others[0][0].image) == (str(photos / "a.png"), "0")
    with torch.inference_mode():
        scores = student.scores(student.preprocessing.pixels(pixels)[None])["fused"]
    expected = scores.softmax(1)[0].sort(descending=True)
    assert [guess.number for guess in first[0].top] == expected.indices.tolist()
    torch.testing.assert_close(
        torch.tensor([guess.confidence for guess in first[0].top]), expected.values
    )
    with pytest.raises(InputError, match=r"float32 \[3, 4\]: give paths"):
        student.predict(torch.zeros(3, 4))


def test_the_order_does_not_depend_on_the_batches(student: Classifier, photos: Path) -> None:
    alone = student.predict(photos, batch_size=1, workers=1)
    together = student.predict(str(photos), batch_size=3)
    assert [found.image for found in alone] == [found.image for found in together]
    assert all(map(similar, alone, together))
    assert [found.label is None for found in alone] == [False, False, False, True]
    assert "cannot read image" in (alone[3].error or "")


def test_a_runs_own_rule_decides(student: Classifier, photos: Path) -> None:
    """Of a baseline, whose tokens nobody taught, the class token alone."""
    recipe = Recipe(supervision=METHODS["labels"]())
    baseline = Classifier(
        student.model, student.preprocessing, student.class_names, True,
        run=Run(photos, recipe),
    )  # fmt: skip
    assert baseline.rule == "class"
    baseline.run.__dict__["facts"] = {"classes": list(student.class_names)}  # type: ignore[union-attr]
    shown = student.preprocessing.pixels(np.asarray(Image.open(photos / "a.png")))[None]
    with torch.inference_mode():
        expected = student.output(shown).logits.softmax(1).max()
    confidence = baseline.predict(photos / "a.png")[0].confidence
    assert confidence == pytest.approx(float(expected), abs=1e-6)
    assert confidence != pytest.approx(student.predict(photos / "a.png")[0].confidence, abs=1e-6)


def test_files_and_table(
    weights: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--checkpoint", str(weights), "--model", "test_vit", "--device", "cpu"]
    read = {}
    for ending in ("csv", "json", "jsonl"):
        file = tmp_path / f"out.{ending}"
        with pytest.raises(SystemExit) as end:
            main(["predict", str(photos), *common, "--output", str(file)])
        assert end.value.code == 3  # one cannot be read
        read[ending] = file.read_text()
    said = capsys.readouterr().out
    assert "1 of 4 not read: cannot read image" in said
    assert str(photos / "deep" / "c.png") in said  # whole, though it is long
    assert f"written to {tmp_path / 'out.csv'}" in said
    listed = json.loads(read["json"])
    assert listed == [json.loads(line) for line in read["jsonl"].splitlines()]
    rows = list(csv.DictReader(read["csv"].splitlines()))
    for row, entry in zip(rows, listed, strict=True):
        assert row["image"] == entry["image"]
        assert row["class"] == (entry["class"] or "")
        if entry["error"] is None:
            assert row["class_3"] == entry["top"][2]["label"]
            assert float(row["confidence"]) == pytest.approx(
                entry["top"][0]["confidence"], abs=1e-6
            )
            assert sum(guess["confidence"] for guess in entry["top"]) == pytest.approx(1, abs=1e-5)
        else:
            assert row["error"] == entry["error"]
    with pytest.raises(SystemExit) as end:
        main(["predict", str(photos), *common, "--output", str(tmp_path / "out.csv")])
    assert end.value.code == 2
    assert "exists already" in capsys.readouterr().err


def test_what_cannot_be_answered(weights: Path, photos: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"checkpoint": weights, "model": "test_vit", "device": "cpu"}
    (tmp_path / "folds" / "fold-0").mkdir(parents=True)  # as `teach --folds` has them
    with pytest.raises(InputError, match=r"holds several classifiers: give one .*fold-0"):
        tl.predict(images=photos, checkpoint=tmp_path / "folds", device="cpu")
    with pytest.raises(InputError, match=r"holds several classifiers: give one .*fold-0"):
        tl.evaluate(data=str(photos), model=str(tmp_path / "folds"), device="cpu")
    with pytest.raises(InputError, match=r"cannot read image .*z\.png"):
        tl.predict(images=photos / "z.png", **given)
    with pytest.raises(InputError, match=r"written as \.csv, \.json, \.jsonl"):
        predict(images=photos, output=tmp_path / "out.xlsx", **given)
    assert not (tmp_path / "out.xlsx").exists()
