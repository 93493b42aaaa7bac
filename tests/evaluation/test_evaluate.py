"""`tokenlabel eval` end to end: on folders, benchmarks, and as many processes as one likes."""

from __future__ import annotations

import csv
import dataclasses
import json
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from accelerate import PartialState
from PIL import Image
from safetensors.torch import save_file
from timm.data import ImageNetInfo, RealLabelsImagenet, create_transform

import tokenlabel as tl
from tokenlabel.api.evaluate import _images as judged_images
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.open import HOLDOUT_SEED, holdout, open_source
from tokenlabel.data.source import UNLABELED, Found, ImageSource, source_fingerprint
from tokenlabel.errors import InputError
from tokenlabel.evaluation.benchmarks import answers
from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.evaluation.load import load_classifier
from tokenlabel.evaluation.metrics import ClassificationCounts, accepted_label, prediction
from tokenlabel.evaluation.results import EvalResult
from tokenlabel.export.card import model_card
from tokenlabel.models import DenseModel, arithmetic
from tokenlabel.runs.open import Run, open_run
from tokenlabel.runs.recipe import Data, Recipe
from tokenlabel.runs.recipe_file import to_yaml
from tokenlabel.supervision import METHODS, Rule
from tokenlabel.training.teach_recipe import TeachData, TeachRecipe

WNIDS = ImageNetInfo("imagenet-1k").label_names()
SIZE = 32


def write_images(root: Path, keys: list[str], seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (int(rng.integers(30, 60)), int(rng.integers(30, 60)), 3))
        Image.fromarray(pixels.astype(np.uint8)).save(root / key)
    return root


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LV-ViT-T of 1000 classes for small images, as a file of weights."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "lvvit_t.safetensors"
    save_file(timm.create_model("lvvit_t", img_size=SIZE).state_dict(), file)
    return file


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven images of four of ImageNet's classes."""
    keys = [f"{WNIDS[3 * (i % 4)]}/ILSVRC2012_val_{i + 1:08d}.png" for i in range(11)]
    return write_images(tmp_path_factory.mktemp("images"), keys)


def evaluate(weights: Path, data: Path, **options: object) -> EvalResult:
    return tl.evaluate(
        data=str(data), checkpoint=weights, model="lvvit_t", workers=0, device="cpu", **options
    )


def plain(results: EvalResult) -> dict:
    """As its file has it."""
    return json.loads(json.dumps(results.as_dict()))


def test_counts_are_those_of_a_plain_loop(weights: Path, images: Path, tmp_path: Path) -> None:
    results = evaluate(weights, images, batch_size=4, output=tmp_path / "out")
    classifier = load_classifier(weights, "lvvit_t")
    assert classifier.preprocessing.image_size == (SIZE, SIZE)
    source = open_source(str(images))
    right: dict[Rule, int] = dict.fromkeys(("class", "token", "fused"), 0)
    for i, label in enumerate(source.labels):
        pixels = np.asarray(Image.open(images / source.keys[i]).convert("RGB"))
        with torch.no_grad():
            output = classifier.output(classifier.preprocessing.pixels(pixels)[None])
        for rule in right:
            scores = prediction(output, rule)
            right[rule] += int(WNIDS[int(scores.argmax())] == source.class_names[label])
    for rule, count in right.items():
        assert results.rules[rule]["top1"] == count / 11
        assert results.rules[rule]["images"] == 11
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == plain(results)
    with (tmp_path / "out" / "classes.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert sum(int(line["images"]) for line in table) == 11
    assert [line["class"] for line in table] == ["tench", "tiger shark", "stingray", "ostrich"]
    assert Image.open(tmp_path / "out" / "confusion.png").width > 200


@pytest.mark.parametrize("processes", [3])
def test_many_processes_count_exactly_as_one(
    weights: Path, images: Path, tmp_path: Path, processes: int
) -> None:
    """Three batches of four, the last one short; a third process would have one batch only."""
    single = evaluate(weights, images, batch_size=4, output=tmp_path / "one")
    fork = multiprocessing.get_context("fork")
    ranks = [
        fork.Process(target=_rank, args=(r, processes, tmp_path, weights, images))
        for r in range(processes)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)
        assert rank.exitcode == 0
    assert json.loads((tmp_path / "many" / "results.json").read_text()) == plain(single)
    table = (tmp_path / "one" / "classes.csv").read_text()
    assert (tmp_path / "many" / "classes.csv").read_text() == table


def _rank(rank: int, world: int, folder: Path, weights: Path, images: Path) -> None:
    """One process of several, started as torchrun starts it (forked: torch is loaded already)."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = (rank, rank, world, world, "127.0.0.1", 20000 + os.getppid() % 20000 + world)
    os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
    PartialState._reset_state()
    results = evaluate(weights, images, batch_size=4, output=folder / "many")
    assert results.images == 11


@pytest.mark.slow
@pytest.mark.parametrize("wanted", ["auto", "bfloat16"])
def test_the_arithmetic_is_chosen_and_kept_with_the_results(
    weights: Path, images: Path, tmp_path: Path, wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    monkeypatch.setattr(arithmetic, "_FEWEST", 1)
    monkeypatch.setattr(
        arithmetic,
        "quicker_arithmetic",
        lambda step, count: (tried.append(count), step(1, torch.bfloat16), torch.bfloat16)[-1],
    )
    found = evaluate(weights, images, batch_size=2, dtype=wanted, output=tmp_path / "half")
    assert tried == ([2] if wanted == "auto" else [])
    assert json.loads((tmp_path / "half" / "results.json").read_text())["dtype"] == "bfloat16"
    whole = evaluate(weights, images, dtype="float32")
    assert 0 < abs(found.rules["class"]["loss"] - whole.rules["class"]["loss"]) < 0.1


def test_torchrun_starts_it(weights: Path, images: Path, tmp_path: Path) -> None:
    single = evaluate(weights, images, batch_size=2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "-m", "tokenlabel", "eval"]
    command += ["--data", str(images), "--checkpoint", str(weights), "--model", "lvvit_t"]
    command += ["--workers", "0", "--batch-size", "2", "--device", "cpu"]
    command += ["--output", str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert json.loads((tmp_path / "results.json").read_text()) == plain(single)


# -- benchmarks, each as a small folder of its own layout ---------------------------------------


def right_answers(folder: Path, benchmark: str, names: list[str] = WNIDS) -> list[list[int]]:
    found = answers(open_source(str(folder)), names, benchmark)
    return [[i for i in row if i >= 0] for row in found.accepted.tolist()]


def test_folders_of_image_net_ids_are_found_by_name(tmp_path: Path) -> None:
    folder = write_images(tmp_path, [f"{WNIDS[c]}/a.png" for c in (7, 2, 900)])
    for benchmark in ("folder", "imagenet", "imagenet-sketch"):
        assert right_answers(folder, benchmark) == [[2], [7], [900]]


def test_numbered_folders_are_found_by_number(tmp_path: Path) -> None:
    folder = write_images(tmp_path, [f"{c}/{c}.png" for c in (999, 2, 10)])
    assert right_answers(folder, "imagenet-v2") == [[2], [10], [999]]


@pytest.mark.parametrize("benchmark", ["imagenet-a", "imagenet-r"])
def test_predictions_are_chosen_from_the_classes_of_the_folder(
    tmp_path: Path, benchmark: str
) -> None:
    folder = write_images(tmp_path, [f"{WNIDS[c]}/a.png" for c in (7, 2)])
    found = answers(open_source(str(folder)), WNIDS, benchmark)
    scores = torch.arange(1000.0)[None]
    assert found.restrict(scores).topk(2).indices.tolist() == [[7, 2]]
    assert answers(open_source(str(folder)), WNIDS).restrict(scores).argmax() == 999


def test_reassessed_labels_count_as_timm_counts_them(weights: Path, tmp_path: Path) -> None:
    """Several answers, one, or none: timm's own evaluator is the reference."""
    table = RealLabelsImagenet([""] * 50_000).real_labels
    several = [k for k, v in table.items() if len(v) > 2][:4]
    none = [k for k, v in table.items() if not v][:2]
    names = sorted({*several, *none, "ILSVRC2012_val_00000009.JPEG"})
    folder = write_images(tmp_path, [f"{WNIDS[0]}/{Path(n).stem}.png" for n in names])
    source = open_source(str(folder))
    found = answers(source, WNIDS, "imagenet-real")
    scores = torch.rand(len(names), 1000, generator=torch.Generator().manual_seed(0))
    for i, name in enumerate(names[::2]):  # half of them right, by the last of their labels
        if table[name]:
            scores[2 * i, table[name][-1]] = 2.0
    counts = ClassificationCounts.zeros(1000)
    counts.update(scores, accepted_label(scores, found.accepted), (found.accepted >= 0).any(1))
    judged = [i for i, name in enumerate(names) if table[name]]
    for k, accuracy in ((1, counts.top1_accuracy), (5, counts.top5_accuracy)):
        best = scores.topk(k).indices.tolist()
        hits = [any(p in table[names[i]] for p in best[i]) for i in judged]
        assert accuracy == pytest.approx(sum(hits) / len(hits))
    results = evaluate(weights, folder, benchmark="imagenet-real")
    assert results.images == len(names) - 2


@pytest.mark.parametrize(
    ("folders", "benchmark", "names", "message"),
    [
        (["cat", "dgo"], "folder", ["cat", "dog"], "a class 'dgo'.*did you mean 'dog'"),
        (["cat", "dog"], "folder", ["1", "2", "3"], "it knows 3 classes"),
        (["cat"], "imagenet-v2", WNIDS, "a class 'cat'"),
        (["cat"], "imagenet", ["cat", "dog"], "needs a model of ImageNet's 1000"),
        ([WNIDS[0]], "imagenet-real", WNIDS, "is not one of ImageNet's validation images"),
    ],
)
def test_images_that_do_not_go_with_the_model_are_named(
    tmp_path: Path, folders: list[str], benchmark: str, names: list[str], message: str
) -> None:
    folder = write_images(tmp_path, [f"{f}/a.png" for f in folders])
    with pytest.raises(InputError, match=message):
        right_answers(folder, benchmark, names)


def test_images_without_classes_cannot_be_judged(weights: Path, tmp_path: Path) -> None:
    flat = write_images(tmp_path / "flat", ["a.png", "b.png"])
    with pytest.raises(
        InputError, match=r"have no classes: give one folder .*`tokenlabel predict`"
    ):
        evaluate(weights, flat)


def test_other_names_in_the_same_number_go_in_order(tmp_path: Path) -> None:
    folder = write_images(tmp_path, ["chat/a.png", "chien/a.png"])
    assert right_answers(folder, "folder", ["0", "1"]) == [[0], [1]]


# -- what a model is shown -----------------------------------------------------------------------


FITS = {"center": "crop", "squash": "squash"}


@pytest.mark.parametrize("mode", FITS)
@pytest.mark.parametrize("size", [(90, 200), (200, 90), (64, 64)])
def test_a_model_is_shown_what_timm_shows_it(mode: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 9, 3)).astype(np.uint8))
    image = coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    settings = Preprocessing((64, 64), 0.8, "bicubic", (0.5,) * 3, (0.5,) * 3, FITS[mode])
    reference = create_transform(
        (3, 64, 64), crop_pct=0.8, interpolation="bicubic", crop_mode=mode, normalize=False
    )
    mine = settings.pixels(np.asarray(image)).int()
    assert (mine - reference(image).int()).abs().max() <= 2


def test_settings_are_those_the_weights_were_published_with() -> None:
    name = "convnextv2_nano.fcmae_ft_in22k_in1k_384"
    model = timm.create_model(name, depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    assert Preprocessing.of_timm(model).fit == "squash"
    assert Preprocessing.of_timm(timm.create_model("test_resnet")).fit == "crop"


# -- what can be loaded -------------------------------------------------------------------------


def test_a_plain_classifier_has_one_line(images: Path, tmp_path: Path) -> None:
    file = tmp_path / "resnet.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=1000).state_dict(), file)
    results = tl.evaluate(
        data=str(images), checkpoint=file, model="test_resnet", workers=0, device="cpu"
    )
    assert list(results.rules) == ["class"]


def test_a_students_token_head_comes_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "student.safetensors"
    save_file(DenseModel("test_vit", 7).state_dict(), file)
    classifier = load_classifier(file, "test_vit")
    assert classifier.has_tokens
    assert classifier.class_names == tuple("0123456")


def test_released_weights_are_found_by_their_published_number(weights: Path, images: Path) -> None:
    results = evaluate(weights, images, benchmark="imagenet", image_size=224)
    assert results.published == 79.1
    assert evaluate(weights, images).published is None
    for other in ({"crop_pct": 1.0}, {"image_size": 256}):
        settings = {"benchmark": "imagenet", "image_size": 224} | other
        assert evaluate(weights, images, **settings).published is None


@pytest.mark.parametrize(
    ("checkpoint", "model", "message"),
    [
        (None, None, "nothing to load"),
        ("weights", None, "say which timm model"),
        ("nowhere", "lvvit_t", "no checkpoint at"),
        (".", None, "is not a run"),
        (None, "lvvit_t", "no pretrained weights of lvvit_t .*: give --checkpoint FILE"),
        (None, "lvvit_tt", "did you mean"),
    ],
)
def test_what_cannot_be_loaded_is_named(
    weights: Path, tmp_path: Path, checkpoint: str | None, model: str | None, message: str
) -> None:
    places = {"weights": weights, "nowhere": tmp_path / "nowhere", ".": tmp_path, None: None}
    with pytest.raises(InputError, match=message):
        load_classifier(places[checkpoint], model)


def test_a_run_is_judged_as_its_own_validation_judged_it(tmp_path: Path) -> None:
    """Of both checkpoints and both kinds of weights; the class names travel with the run."""
    names = ("ant", "bee", "cow")
    for split, count in (("train", 8), ("val", 5)):
        keys = [f"{split}/{name}/{i}.png" for name in names for i in range(count)]
        write_images(tmp_path / "data", keys, seed=count)
    tl.train(
        data=str(tmp_path / "data"),
        output=tmp_path / "run",
        model="test_vit",
        image_size=64,
        supervision="labels",
        epochs=2,
        batch_size=8,
        workers=0,
        dtype="float32",
        settings=("schedule.warmup_epochs=0", "engine.device=cpu", "trackers=[]", "ema.decay=0.5"),
    )
    measured = json.loads((tmp_path / "run" / "results.json").read_text())
    for weights, kind in (("ema", "ema"), ("model", "val")):
        results = tl.evaluate(
            data=str(tmp_path / "data"),
            split="val",
            checkpoint=tmp_path / "run" / measured["checkpoint"],
            weights=weights,
            workers=0,
            device="cpu",
        )
        for name in ("top1", "top5", "loss"):
            value = measured["measures"][f"{kind}/{name}"]
            assert results.rules["class"][name] == pytest.approx(value, rel=1e-5)
        assert results.folder is not None
        assert (results.folder / "results.json").exists()
    kept = open_run(tmp_path / "run").evaluations()
    assert {(line["weights"], line["split"]) for line in kept} == {("ema", "val"), ("model", "val")}
    card = model_card(load_classifier(tmp_path / "run"), "own/model")
    assert len(re.findall(r"^\| data val .*\| ema ", card, re.M)) == 1
    assert len(re.findall(r"^\| data val .*\| model ", card, re.M)) == 1
    best = load_classifier(tmp_path / "run")
    assert best.class_names == names
    assert not best.has_tokens
    assert best.facts["checkpoint"].startswith(str(tmp_path / "run" / measured["best_checkpoint"]))


# -- what the numbers are about ------------------------------------------------------------------


def result(**changes: Any) -> EvalResult:
    base = EvalResult(
        rule="class", rules={}, images=3, left_out={}, notes=(), data="a/photos", split="val",
        benchmark="folder", found=Found(3, 2), images_digest="00", model="lvvit_s",
        checkpoint="c", weights="ema", step=12, damaged=(), image_size=(224, 224), crop_pct=0.9,
        fit="crop", interpolation="bicubic", token_weight=0.5, dtype="float32",
        published=None,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "model"},
        {"step": 24},
        {"image_size": (256, 256)},
        {"crop_pct": 1.0},
        {"split": "test"},
        {"benchmark": "imagenet"},
        {"data": "a/others"},
        {"images_digest": "01"},  # other images in a place of the same name
        {"token_weight": 0.3},
        {"fit": "squash"},
        {"dtype": "bfloat16"},
    ],
)
def test_evaluations_that_differ_do_not_overwrite_each_other(change: dict[str, Any]) -> None:
    run = Path("run")
    assert result(**change).own_folder(run) != result().own_folder(run)
    assert result(images=7).own_folder(run) == result().own_folder(run)


def test_the_folder_of_an_evaluation_can_be_read() -> None:
    name = result(data="/d/shards-{0..9}.tar").own_folder(Path("run")).name
    assert name.startswith("ema_12_shards_val_folder_224x224_crop0.9_")


def labeled(tmp_path: Path, labels: list[str], names: tuple[str, ...]) -> ImageSource:
    folder = write_images(tmp_path, [f"{name}/{i}.png" for i, name in enumerate(labels)])
    return dataclasses.replace(open_source(str(folder)), class_names=names)


def test_images_without_a_class_are_counted_not_judged(tmp_path: Path) -> None:
    source = labeled(tmp_path, ["ant", "bee", "cow"], ("ant", "bee", "cow"))
    source = dataclasses.replace(source, labels=[0, UNLABELED, 2])
    found = answers(source, ["ant", "bee", "cow"])
    assert found.accepted.tolist() == [[0], [-1], [2]]
    assert found.left_out == {"without a class": 1}


def test_what_the_numbers_do_not_cover_is_said(weights: Path, images: Path) -> None:
    results = evaluate(weights, images)
    assert results.rule == "fused"
    assert any("996 of the model's 1000 classes have no image" in note for note in results.notes)


def test_names_matched_in_order_are_said(tmp_path: Path) -> None:
    folder = write_images(tmp_path, ["chat/a.png", "chien/a.png"])
    found = answers(open_source(str(folder)), ["0", "1"])
    assert "'chat' as '0' ... 'chien' as '1'" in found.notes[0]


@pytest.mark.parametrize("kind", ["labels", "token-labels"])
def test_the_headline_is_the_methods_own_rule(kind: str, tmp_path: Path) -> None:
    model = DenseModel("test_vit", 3)
    run = Run(tmp_path, Recipe(supervision=METHODS[kind]()))
    settings = Preprocessing((32, 32), 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3)
    classifier = Classifier(model, settings, ("a", "b", "c"), True, run=run)
    published = "fused" if kind == "token-labels" else "class"
    assert classifier.rule == published
    for recorded in ("class", "fused", "nonsense"):
        follows = dataclasses.replace(classifier, facts={"rule": recorded}).rule
        assert follows == (published if recorded == "nonsense" else recorded)


@pytest.mark.parametrize("part", [None, "train"])
@pytest.mark.parametrize("taught", [False, True])
def test_what_training_held_out_is_what_is_judged(
    part: str | None, taught: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    below = "" if part is None else f"{part}/"
    write_images(folder, [f"{below}{c}/{i}.png" for c in "ab" for i in range(10)])
    trained, held = holdout(open_source(str(folder), part), 0.2, HOLDOUT_SEED)
    place = tmp_path / "run"
    place.mkdir()
    facts = {
        "classes": ["a", "b"],
        "images_fingerprint": source_fingerprint(trained),
        "images_found": trained.found.as_dict(),
    }
    (place / "environment.json").write_text(json.dumps(facts))
    data: Any = {"train": str(folder), "holdout": 0.2}
    recipe: Any = TeachRecipe(data=TeachData(**data)) if taught else Recipe(data=Data(**data))
    (place / "recipe.yaml").write_text(to_yaml(recipe))
    run = None if taught else Run(place, recipe)
    model: Any = None  # what is judged does not depend on it
    shown = Preprocessing((32, 32), 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3)
    origin = {"checkpoint": str(tmp_path)}
    judged = Classifier(model, shown, ("a", "b"), has_tokens=False, facts=origin, run=run)
    source, note = judged_images(str(folder), None, judged)
    assert (source.keys, note) == (held.keys, None)
    if part is not None:
        assert judged_images(str(folder / part), None, judged)[0].keys == held.keys
        # all of it, where it is asked for
        assert len(judged_images(str(folder), part, judged)[0]) == 20
    write_images(folder, [f"{below}a/new.png"])  # other images than the run's
    if part is None:
        source, note = judged_images(str(folder), None, judged)
        assert len(source) == 21
        assert "were changed after the training" in str(note)
    else:
        with pytest.raises(
            InputError, match="has no validation part, and its images are not those"
        ):
            judged_images(str(folder), None, judged)
    copy = write_images(tmp_path / "other", [f"{c}/1.png" for c in "ab"])
    assert judged_images(str(copy), None, judged)[1] is None
