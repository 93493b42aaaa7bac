"""`tl.compare` pairs its arms, goes on where it stopped, and says what the numbers say."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tokenlabel as tl
from tokenlabel.compare import Comparison, Record, verb
from tokenlabel.compare.budget import Rate, hours, sized
from tokenlabel.compare.training import Training, accuracies
from tokenlabel.compare.verb import ARMS
from tokenlabel.errors import InputError
from tokenlabel.labels.vocabulary import Vocabulary
from tokenlabel.training.student import StudentSpec

SMALL: dict[str, Any] = {
    "model": "test_vit", "image_size": 32, "batch_size": 8, "epochs": 2, "seeds": 1, "parallel": 1,
    "settings": ("engine.precision=fp32", "engine.device=cpu", "augment.policy=null", "trackers=[]"),
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two tints, and labels that are right everywhere."""
    torch.set_num_threads(1)
    folder, random = tmp_path_factory.mktemp("compare"), np.random.default_rng(0)
    with tl.LabelStoreWriter(
        folder / "labels", num_classes=2, class_names=("blue", "red")
    ) as writer:
        for number in range(24):
            part, kind = ("val" if number > 15 else "train"), number % 2
            pixels = random.integers(0, 120, (32, 32, 3))
            pixels[..., 2 * (1 - kind)] += 100
            file = folder / "images" / part / ("blue", "red")[kind] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
            if part == "train":
                logits = torch.full((4, 4, 2), -4.0)
                logits[..., kind] = 4.0
                label = tl.LabelMap.from_logits(logits.permute(2, 0, 1), 2, tl.Box())
                writer.add(f"{file.parent.name}/{file.name}", label)
    return folder


def test_four_arms_become_a_report_and_a_second_call_changes_nothing(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    choices = {"data": str(world / "images"), "labels": str(world / "labels"), **SMALL}
    found = tl.compare(**choices, output=tmp_path / "out", notice=lines.append)
    assert len(found.records) == 4
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["verdict"] == found.decision()
    assert results["facts"]["judged on"] == "8 images: one is 12.50 points"
    deciding = next(line for line in found.lines() if line.arm == results["rival"])
    assert results["difference"]["mean"] == pytest.approx(found.lines()[-1].mean - deciding.mean)
    assert all(run["details"]["processor_seconds"] > 0 for run in results["runs"])
    assert all(line["processor_seconds"] > 0 for line in results["arms"])
    assert [len(run["details"]["curve"]) for run in results["runs"]] == [2] * 4
    page = (tmp_path / "out/report.html").read_text()
    assert "data:image/png" in page
    assert "http" not in page
    mixes = {
        run.name: (run / "recipe.yaml").read_text().split("mixing:\n  kind: ")[1].split("\n")[0]
        for run in (tmp_path / "out/runs").iterdir()
    }
    assert mixes["ground-truth-0"] == "none"
    assert mixes["ground-truth-cutmix-0"] == "cutmix"
    assert (mixes["token-labels-0"], mixes["image-level-distillation-0"]) in (
        ("none", "none"), ("mixtoken", "cutmix"),
    )  # fmt: skip
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    monkeypatch.delattr(StudentSpec, "build")  # nor are students built
    assert tl.compare(**choices, output=tmp_path / "out").records == found.records
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    with pytest.raises(InputError, match="was started with epochs 2, now it is 3"):
        tl.compare(**{**choices, "epochs": 3}, output=tmp_path / "out")


def test_more_seeds_are_added_to_the_runs_that_are_there(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the last two arms mix stays as the first seeds decided, whatever the new ones say."""
    made: list[tuple[str, int, str]] = []

    def made_up(training: Any) -> Record:
        made.append((training.arm, training.seed, training.choices["mix"]))
        cutmix_is_ahead = training.seed > 0
        score = 90.0 if (training.arm == ARMS["mixed"]) == cutmix_is_ahead else 50.0
        facts = {"accuracy": {}, "judged_by": "class", "curve": [], "images": 16, "judged_on": 8}
        details = {**facts, "processor_seconds": 1.0}
        return Record(training.arm, training.seed, score, 1.0, details)

    monkeypatch.setattr(Training, "__call__", made_up)
    monkeypatch.setattr(verb, "_require_trainable", lambda *_: None)
    monkeypatch.setattr("tokenlabel.compare.report.curves", lambda _found: "")
    choices = {"data": str(world / "images"), "labels": str(world / "labels"), **SMALL}
    found = tl.compare(**choices, output=tmp_path / "out")
    advised = re.findall(r"The same command with --seeds (\d+)", found.decision())
    assert advised == ["3"]
    assert "--seeds 3" in (tmp_path / "out/report.html").read_text()
    assert made.pop() == (ARMS["ours"], 0, "none")
    made.clear()
    more = tl.compare(**{**choices, "seeds": 3}, output=tmp_path / "out")
    assert sorted({seed for _, seed, _ in made}) == [1, 2]
    assert len(made) == 8
    assert {mix for arm, _, mix in made if arm == ARMS["ours"]} == {"none"}
    assert all(record in more.records for record in found.records)
    facts = json.loads((tmp_path / "out/results.json").read_text())["facts"]
    assert facts["recipe"].endswith("2 epochs, 3 seeds")
    assert facts["size"] == "at first 2 epochs, 1 seeds, as asked for"
    made.clear()
    assert tl.compare(**choices, output=tmp_path / "out").records == more.records  # fewer lose none
    assert made == []


def test_what_cannot_be_compared_is_refused(world: Path, tmp_path: Path) -> None:
    data = str(world / "images")
    labels = str(world / "labels")
    given = {"annotator": "resnet10t", "labels": labels}
    with pytest.raises(InputError, match=r"--annotator and --labels both .* give one"):
        tl.compare(data=data, **given, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="holds something else"):
        tl.compare(data=data, labels=str(world / "labels"), output=tmp_path / "mine", **SMALL)


def test_what_an_arm_cannot_be_trained_on_is_refused_before_the_first_run(
    world: Path, tmp_path: Path
) -> None:
    data, labels = str(world / "images"), str(world / "labels")
    words = tmp_path / "words"
    vocabulary = Vocabulary(torch.eye(4), torch.zeros(4), 0.1)
    with tl.LabelStoreWriter(words, num_classes=4, vocabulary=vocabulary) as writer:
        for key in tl.LabelStore(labels):
            writer.add(key, tl.LabelMap.from_logits(torch.zeros(4, 2, 2), 4, tl.Box()))
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (world / "images").rglob("*.png"):
        shutil.copy(file, flat)
    several = world / "several.csv"
    rows = [f"{f.relative_to(world)},blue;red" for f in sorted(world.rglob("*.png"))]
    several.write_text("\n".join(["path,labels", *rows]) + "\n")
    whole = str(world / "images/train")
    without = {**SMALL, "settings": (*SMALL["settings"], "data.holdout=0.0")}
    for said, choices in {
        "holds visual words, .* give the labels of a classifier": {
            **SMALL,
            "data": data,
            "labels": str(words),
        },
        "the annotator makes visual words, .* give the labels of a classifier": {
            **SMALL,
            "data": data,
            "annotator": {"kind": "words", "model": "test_vit", "pretrained": False},
        },
        "flat have no classes, .* give images in class folders": {
            **SMALL,
            "data": str(flat),
            "labels": labels,
        },
        "one class each": {**SMALL, "data": str(several), "labels": labels},
        "judged on validation images": {**without, "data": whole, "labels": labels},
        "seeds is -1: give 1 or more": {**SMALL, "data": data, "labels": labels, "seeds": -1},
        "parallel is 0: give 1 or more": {**SMALL, "data": data, "labels": labels, "parallel": 0},
        "'soon' is not a duration": {**SMALL, "data": data, "labels": labels, "budget": "soon"},
    }.items():
        with pytest.raises(InputError, match=said):
            tl.compare(**choices, output=tmp_path / "out")
        assert not (tmp_path / "out").exists(), said


def test_labels_are_of_the_images_as_students_read_them(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    asked: dict[str, Any] = {}
    usual = tl.annotate

    def annotate(**choices: Any) -> None:
        asked.update(choices)
        usual(**choices)

    monkeypatch.setattr(verb, "_size", stop)
    monkeypatch.setattr("tokenlabel.api.annotate.annotate", annotate)
    own = (
        "data.train_split=val", "data.val_split=train", "data.orientation=apply",
        "data.channels=[2]", "model.in_chans=1",
    )  # fmt: skip
    choices = {**SMALL, "settings": (*SMALL["settings"], *own), "output": tmp_path / "out"}
    network = {"model": "test_resnet", "pretrained": False, "network": {"image_size": 32}}
    network["model_kwargs"] = {"in_chans": 1, "num_classes": 2}
    with pytest.raises(KeyboardInterrupt):
        tl.compare(data=str(world / "images"), annotator=network, **choices)
    store = tl.LabelStore(tmp_path / "out/labels")
    assert set(store) == {f"{('blue', 'red')[n % 2]}/{n}.png" for n in range(16, 24)}
    assert store.manifest.orientation == "apply"
    assert asked["channels"] == (2,)


def test_too_small_a_budget_names_one_that_then_serves(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the labels binds until the size is settled."""
    monkeypatch.setattr(verb, "measured_rates", lambda *_: {"one": Rate(100.0, 3000)})
    monkeypatch.setattr(verb, "_require_trainable", lambda *_: None)
    monkeypatch.setattr(verb, "make_records", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    choices = {"data": str(world / "images"), "labels": str(world / "labels"), **SMALL}
    choices |= {"output": tmp_path / "out", "seeds": None}
    others = shutil.copytree(world / "labels", tmp_path / "others")
    with pytest.raises(InputError, match="is too short for 2 epochs") as refused:
        tl.compare(**choices, budget="1m")
    advice = re.findall(r"give (\w+) or more", str(refused.value))[0]
    with pytest.raises(InputError, match="started with labels"):
        tl.compare(**{**choices, "labels": str(others)}, budget=advice)
    with monkeypatch.context() as slow:  # an hour between the start and the end of the measurement
        hours_by_now = iter((0.0, 3600.0))
        slow.setattr(verb, "time", SimpleNamespace(monotonic=lambda: next(hours_by_now)))
        with pytest.raises(InputError, match="after 60m of preparations"):
            tl.compare(**choices, budget=advice)
    with pytest.raises(KeyboardInterrupt):
        tl.compare(**choices, budget=advice)
    with pytest.raises(InputError, match=f"started with budget '{advice}'"):
        tl.compare(**choices, budget="9h")


def records(**arms: list[float]) -> Comparison:
    found = [Record(arm, seed, s) for arm, each in arms.items() for seed, s in enumerate(each)]
    return Comparison(tuple(arms), tuple(found))


def test_the_sentence_follows_the_numbers() -> None:
    base, noise = [60.0, 61.0, 59.5], [60.2, 60.9, 59.4]
    assert records(a=base, b=noise, ours=[63.0, 64.1, 62.4]).decision().startswith("Use ours: +3")
    assert (
        records(a=base, b=noise, ours=[57.0, 58.1, 56.6]).decision().startswith("Do not use ours")
    )
    same = records(a=base, b=noise, ours=[60.1, 61.0, 59.6]).decision()
    assert same.startswith("Do not use ours, they change nothing")
    wide = records(a=[60.0, 64.0], b=[63.0, 60.0], ours=[66.0, 60.5])
    assert wide.decision().startswith("More seeds are needed to tell")
    assert records(a=[60.0], b=[63.0], ours=[66.0]).decision().startswith("More seeds are needed")


def test_a_budget_gives_up_seeds_before_epochs_and_names_what_is_too_little() -> None:
    rate = Rate(images_per_second=100.0, images=3000)  # 36 s an epoch, with all that is beside it
    assert [hours(text) for text in ("90m", "90min", "1h30m")] == [1.5] * 3
    assert sized(rate, "40h", 4, 1, 100).seeds == 5
    usual = sized(rate, "12h", 4, 1, 100)
    assert (usual.epochs, usual.seeds) == (100, 3)
    fewer = sized(rate, "50m", 4, 1, 100)
    assert (fewer.epochs, fewer.seeds) == (10, 2)
    assert sized(rate, "50m", 4, 2, 100).epochs == 13
    assert sized(rate, "50m", 4, 1, 100, seeds=4).seeds == 4
    after_half_an_hour = sized(rate, "80m", 4, 1, 100, used=0.5)
    assert (after_half_an_hour.epochs, after_half_an_hour.seeds) == (10, 2)
    assert "after 30m of preparations" in after_half_an_hour.said
    with pytest.raises(InputError, match="too short for 2 epochs of 4 arms with 2 seeds"):
        sized(rate, "5m", 4, 1, 100)
    with pytest.raises(InputError, match=r"after 90m of preparations.*: give 120m or more"):
        sized(rate, "80m", 4, 1, 100, used=1.5)
    slow_to_start = dataclasses.replace(rate, start=60.0)
    # of 50 minutes, 8 runs take 8 to start
    assert sized(slow_to_start, "50m", 4, 1, 100).epochs == 8
    assert slow_to_start.epochs(slow_to_start.hours(7)) == pytest.approx(7)
    for text in ("", "10", "h", "0m", "-3h", "1h30", "30 minutes"):
        with pytest.raises(InputError, match="is not a duration"):
            hours(text)


def test_accuracies_are_named_by_their_rule() -> None:
    assert accuracies({"val/top1": 0.5}) == ({"class": 0.5}, "class")
    both = {"val/top1": 0.6, "val/class_top1": 0.5, "val/token_top1": 0.4}
    assert accuracies(both) == ({"class": 0.5, "token": 0.4, "fused": 0.6}, "fused")
    now = {"val/top1": 0.5, "val/class_top1": 0.5, "val/token_top1": 0.4, "val/fused_top1": 0.3}
    assert accuracies(now) == ({"class": 0.5, "token": 0.4, "fused": 0.3}, "fused")
