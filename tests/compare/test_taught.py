"""`tl.compare` of images alone: an annotator is taught on them, but not on those it is judged on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import tokenlabel as tl
from tokenlabel.api.train import train_recipe
from tokenlabel.cli.main import main
from tokenlabel.compare import annotator
from tokenlabel.compare.budget import Rate, measured_teaching, teaching_epochs
from tokenlabel.errors import InputError
from tokenlabel.runs.open import open_run
from tokenlabel.runs.recipe import Recipe
from tokenlabel.runs.recipe_file import from_mapping, to_yaml
from tokenlabel.training.student import StudentSpec
from tokenlabel.training.taught import Taught
from tokenlabel.training.teach_recipe import TeachRecipe

NETWORK = "test_resnet"
TEACHING: dict[str, Any] = {
    "model": NETWORK,
    "pretrained": False,
    "image_size": 32,
    "batch_size": 8,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two tints, in two parts."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(32):
        part, kind = ("val" if number >= 24 else "train"), number % 2
        pixels = random.integers(0, 120, (32, 32, 3))
        pixels[..., 2 * (1 - kind)] += 100
        file = folder / part / ("blue", "red")[kind] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return folder


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network, whose pretrained weights can be had, stands for the usual one."""
    torch.manual_seed(0)
    state = timm.create_model(NETWORK).state_dict()
    usual = from_mapping({"model": {"name": NETWORK}, "schedule": {"epochs": 3}}, "x", TeachRecipe)
    monkeypatch.setattr(annotator, "_USUAL", usual)
    monkeypatch.setattr("tokenlabel.models.factory.out_of_reach", lambda _: None)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: state)


def student(data: Path, *settings: str) -> Recipe:
    found = train_recipe(data=str(data), output=data / "none", recipe="starter", settings=settings)
    assert isinstance(found, Recipe)
    return found


@pytest.mark.usefixtures("weights")
def test_an_annotator_is_taught_without_the_images_that_judge(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = from_mapping({"data": {"holdout": 0.5}})  # of a run that is none of this comparison's
    (tmp_path / "runs/train").mkdir(parents=True)
    (tmp_path / "runs/train/recipe.yaml").write_text(to_yaml(begun))
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    choices: dict[str, Any] = {
        "data": str(images / "train"), "output": Path("out"), "notice": lines.append,
        "model": "test_vit", "image_size": 32, "batch_size": 8, "epochs": 1, "seeds": 1, "parallel": 1,
        "settings": (
            "engine.precision=fp32", "engine.device=cpu", "augment.policy=null", "trackers=[]",
        ),
    }  # fmt: skip
    tl.compare(**choices)
    taught = open_run("out/annotator/run", TeachRecipe).facts
    runs = [open_run(run).facts for run in Path("out/runs").iterdir()]
    assert len(runs) == 4
    for facts in runs:
        assert facts["held_out"] == taught["held_out"]
        assert facts["images_fingerprint"] == taught["images_fingerprint"]
    assert (taught["images"], taught["held_out"]["images"]) == (22, 2)
    said = json.loads(Path("out/results.json").read_text())["facts"]["annotator"]
    assert said.startswith(f"{NETWORK}, taught for 3 epochs on 22 images: top-1 ")
    assert said in lines
    assert said in Path("out/report.html").read_text()

    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    monkeypatch.delattr(StudentSpec, "build")
    tl.compare(**choices)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}


def test_it_sees_the_training_images_as_students_do(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def teach(**choices: Any) -> Taught:
        asked.update(choices)
        return Taught(tmp_path, 0.5, 2, 10, {})

    monkeypatch.setattr(annotator, "teach", teach)
    other = ("data.train_split=val", "data.val_split=train", "data.cache=disk", "engine.device=cpu")
    for data, settings, seen in (
        (images, (), {"split": None, "holdout": 0.1, "in_chans": 3, "channels": ()}),
        (images, other, {"split": "val", "holdout": 0.1, "cache": "disk", "device": "cpu"}),
        (images / "train", ("data.holdout=0.3",), {"split": None, "holdout": 0.3}),
        (images, ("model.in_chans=1", "data.channels=[2]"), {"in_chans": 1, "channels": (2,)}),
    ):
        annotator.taught_annotator(tmp_path, student(data, *settings), None, print)
        assert asked["data"] == str(data)
        assert {name: asked[name] for name in seen} == seen
        assert (asked["model"], asked["epochs"]) == ("resnet50", 20)


@pytest.mark.usefixtures("weights")
def test_a_budget_shortens_the_teaching_once(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotator, "measured_teaching", lambda *_: Rate(1.0, 100))  # 2 m an epoch
    recipe, folder = student(images / "train", "engine.device=cpu"), tmp_path / "annotator"
    with pytest.raises(
        InputError, match=r"too short to teach .* for 2 epochs .*: give 15m or more"
    ):
        annotator.taught_annotator(folder, recipe, "9m", print)
    assert "taught for 2 epochs" in annotator.taught_annotator(folder, recipe, "15m", print)
    assert "taught for 2 epochs" in annotator.taught_annotator(folder, recipe, "9h", print)
    assert "taught for 2 epochs" in annotator.taught_annotator(folder, recipe, None, print)


def test_a_third_of_a_budget_is_for_teaching() -> None:
    rate = Rate(images_per_second=100.0, images=3000)  # 36 s an epoch, with all that is beside it
    assert teaching_epochs(rate, "19m", 20) == 10
    assert teaching_epochs(rate, "2h", 20) == 20
    with pytest.raises(InputError, match=r"for 2 epochs \(100 images/s\): give 5m or more"):
        teaching_epochs(rate, "3m", 20)
    assert teaching_epochs(rate, "5m", 20) == 2


def test_teaching_is_measured_and_leaves_nothing(images: Path, tmp_path: Path) -> None:
    choices = {**TEACHING, "data": str(images), "epochs": 20, "device": "cpu", "dtype": "float32"}
    rate = measured_teaching(choices, tmp_path / "trial")
    assert rate.images == 16  # of 22 that are taught, two batches of eight
    assert 1 < rate.images_per_second < 1e5
    assert not (tmp_path / "trial").exists()


def test_where_no_weights_can_be_had_one_line_says_what_can_be_done(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tokenlabel.models.factory.out_of_reach", lambda _: "no connection")
    words = ["compare", "--data", str(images), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--model", "test_vit", "--image-size", "32", "--batch-size", "8"])
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    for part in (
        "pretrained weights of resnet50 to teach one from are not available (no connection)",
        "give --annotator NAME", "--labels STORE", "tokenlabel teach --data", "--no-pretrained",
    ):  # fmt: skip
        assert part in said
    assert not (tmp_path / "out").exists()


def test_a_model_of_other_images_does_not_pass_for_one_of_these(
    images: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(images / "train", tmp_path / "data")
    choices = {**TEACHING, "data": str(data), "epochs": 1, "device": "cpu", "dtype": "float32"}
    done = tl.teach(**choices, output=tmp_path / "annotator")
    assert tl.teach(**choices, output=tmp_path / "annotator") == done
    shutil.copy(data / "red/1.png", data / "red/another.png")
    with pytest.raises(InputError, match=r"started with other (training|validation) images"):
        tl.teach(**choices, output=tmp_path / "annotator")
