"""From folder to finished run, through the verb `train`."""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel import recipes
from tokenlabel.api.evaluate import evaluate
from tokenlabel.api.train import train, train_recipe
from tokenlabel.cli.main import main
from tokenlabel.cli.view_batch import view_batch
from tokenlabel.data.open import open_source
from tokenlabel.errors import InputError
from tokenlabel.evaluation.load import load_classifier
from tokenlabel.export.timm_folder import export_timm
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStoreWriter
from tokenlabel.models import reach
from tokenlabel.pictures import curves
from tokenlabel.runs import checkpoints
from tokenlabel.runs.recipe_file import read_recipe, to_yaml
from tokenlabel.runs.results import TrainResult
from tokenlabel.training import loop, student
from tokenlabel.training.callbacks import Callback
from tokenlabel.training.sheets import Sheets

CLASSES = ("cat", "cow", "dog")


def make_images(folder: Path, count: int, classes: tuple[str, ...] = CLASSES) -> None:
    """Noise tinted by class."""
    random = np.random.default_rng(len(str(folder)))
    for number, label in enumerate(classes):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(120, size=(40, 52, 3), dtype=np.uint8)
            pixels[..., number % 3] += 100
            Image.fromarray(pixels).save(folder / label / f"{i}.png")


def make_store(images: Path, store: Path, split: str | None = None) -> None:
    source = open_source(str(images), split)
    writer = LabelStoreWriter(store, num_classes=len(source.class_names))
    random = torch.Generator().manual_seed(0)
    for key, label in zip(source.keys, source.labels, strict=True):
        logits = torch.randn(len(source.class_names), 5, 5, generator=random)
        logits[label] += 4
        writer.add(key, LabelMap.from_logits(logits, 2, Box()))
    writer.close()


@pytest.fixture(autouse=True)
def _pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes longer than these runs: drawn where it is looked at."""
    if "leaves_all" not in request.node.name:
        monkeypatch.setattr(loop, "draw_curves", lambda *_: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/{train,val}/CLASS/*.png and labels/, the store of the training images."""
    folder = tmp_path_factory.mktemp("data")
    make_images(folder / "images/train", 12)
    make_images(folder / "images/val", 4)
    make_store(folder / "images", folder / "labels", "train")
    return folder


def arguments(folder: Path, output: Path, *overrides: str, **changes: Any) -> dict[str, Any]:
    small = (
        "model.kwargs={patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}", "engine.device=cpu",
        "engine.precision=fp32",
        "optimizer.lr=2e-3", "schedule.warmup_epochs=1", "trackers=[]", "log_every=1",
    )  # fmt: skip
    return {
        "data": str(folder / "images"), "output": output, "labels": str(folder / "labels"),
        "model": "deit_tiny_patch16_224", "image_size": 32, "epochs": 2, "batch_size": 12,
        "workers": 0, "settings": (*small, *overrides), **changes,
    }  # fmt: skip


def words(options: dict[str, Any]) -> list[str]:
    """The command line of `arguments`."""
    line = ["train"]
    for name, value in options.items():
        if name == "settings":
            line += ["--set", *value]
        else:
            line += [f"--{name.replace('_', '-')}", str(value)]
    return line


def trained(*args: Any, **changes: Any) -> TrainResult:
    result = train(**arguments(*args, **changes))
    assert result is not None
    return result


@pytest.mark.sheets
def test_answers_that_were_not_drawn_are_drawn_when_the_run_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(Sheets, "on_end", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(data, tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()
    trained(data, tmp_path / "run")
    assert (tmp_path / "run" / "results.json").exists()
    assert (tmp_path / "run" / "answers.jpg").exists()


@pytest.mark.sheets
def test_a_run_leaves_all_that_it_promises(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    result = trained(data, output, "trackers=[tensorboard]")
    assert {p.name for p in output.iterdir()} == {
        "recipe.yaml", "environment.json", "metrics.jsonl", "results.json", "curves.png",
        "curves.html", "checkpoints", "trackers", "first-batch.jpg", "answers.jpg",
    }  # fmt: skip
    drawn = view_batch(run=output, output=tmp_path / "again.jpg")
    assert drawn.read_bytes() == (output / "first-batch.jpg").read_bytes()
    width, height = Image.open(output / "answers.jpg").size
    assert width == 6 * 168 + 8  # three images of 32 pixels, enlarged, each beside its tokens
    assert height > 4 * 200  # and the legend
    assert json.loads((output / "results.json").read_text()) == result.results
    assert result.results["updates"] == 6
    assert any("tfevents" in p.name for p in (output / "trackers").rglob("*"))
    environment = json.loads((output / "environment.json").read_text())
    assert environment["classes"] == list(CLASSES)
    assert (
        len(environment["images_fingerprint"]) == len(environment["labels"]["index_sha256"]) == 64
    )
    assert torch.__version__.startswith(environment["libraries"]["torch"])
    updates = [entry for entry in result.metrics if "loss" in entry]
    assert [entry["update"] for entry in updates] == list(range(1, 7))
    expected = {"lr", "gradient_norm", "images_per_second", "data_wait", "memory_gb", "token"}
    assert all(expected <= entry.keys() for entry in updates)
    validations = [entry for entry in result.metrics if "val/top1" in entry]
    assert [entry["epoch"] for entry in validations] == [1, 2]
    assert {"ema/top1", "val/class_top1", "val/token_top1"} <= validations[0].keys()
    each = [(entry["ema/fused_top1"], entry["ema/class_top1"]) for entry in validations]
    assert [entry["ema/top1"] for entry in validations] == [max(pair) for pair in each]
    fused, alone = each[0 if max(each[0]) >= max(each[1]) else 1]  # of the best checkpoint
    assert result.results["rule"] == ("class" if alone > fused else "fused")
    assert read_recipe(output / "recipe.yaml").model.num_classes == len(CLASSES)
    classifier = load_classifier(output)  # what the evaluation makes of it
    assert classifier.model(torch.rand(1, 3, 32, 32)).logits.shape == (1, len(CLASSES))


@pytest.mark.parametrize("better", ["class", "fused"])
def test_the_better_rule_on_validation_is_recorded_with_the_best_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: str
) -> None:
    """It goes with the export, however the images of an evaluation are answered."""
    scores = {"class": [0.4, 0.8], "fused": [0.6, 0.6]}
    if better == "fused":  # a tie in the first epoch, and the second is worse
        scores = {"class": [0.6, 0.3], "fused": [0.6, 0.2]}
    calls = iter(range(4))

    def validate(*_: Any) -> dict[str, float]:
        epoch = next(calls) // 2  # the weights, and their average
        each = {rule: top1[epoch] for rule, top1 in scores.items()}
        return {"top1": max(each.values())} | {f"{r}_top1": top1 for r, top1 in each.items()}

    monkeypatch.setattr(student, "validate", validate)
    run = tmp_path / "run"
    result = trained(data, run)
    assert result.results["rule"] == better
    assert load_classifier(run).rule == better
    judged = evaluate(data=str(data / "images"), checkpoint=run, workers=0, device="cpu")
    assert judged.rule == better
    assert set(judged.rules) == {"class", "token", "fused"}
    export_timm(load_classifier(run), tmp_path / "timm")
    assert load_classifier(tmp_path / "timm").rule == better
    for progress in run.glob("checkpoints/step-*/progress.json"):  # as the first version wrote it
        older = {k: v for k, v in json.loads(progress.read_text()).items() if k != "recorded"}
        progress.write_text(json.dumps(older))
    assert load_classifier(run).rule == "fused"


def test_three_arms_in_one_process_differ_in_supervision_alone(data: Path, tmp_path: Path) -> None:
    first = {}
    for kind in ("labels", "distillation", "token-labels"):
        alike = ["supervision.class_target=ground-truth"] if kind == "token-labels" else []
        result = trained(data, tmp_path / kind, *alike, supervision=kind)
        first[kind] = result.metrics[0]
        assert result.results["supervision"] == kind
    again = trained(data, tmp_path / "again", supervision="labels", labels=None)
    assert again.metrics[0]["loss"] == first["labels"]["loss"]  # whatever ran before it
    assert "token" not in first["distillation"]
    assert first["token-labels"]["class"] == pytest.approx(first["labels"]["class"], abs=1e-6)
    assert first["distillation"]["class"] != first["labels"]["class"]


def test_workers_do_not_change_the_result(data: Path, tmp_path: Path) -> None:
    results = [trained(data, tmp_path / f"{n}", workers=n).metrics for n in (0, 2)]
    losses = [[entry["loss"] for entry in metrics if "loss" in entry] for metrics in results]
    assert losses[0] == losses[1]


class KillWorkers(Callback):
    def on_update(self, update: int) -> None:
        if update == 2:
            for worker in multiprocessing.active_children():
                worker.kill()


def test_killed_workers_end_in_one_line_and_the_run_goes_on(data: Path, tmp_path: Path) -> None:
    settings = ("checkpoints.every_minutes=0", "schedule.epochs=4")
    options = arguments(data, tmp_path / "run", *settings, workers=1)
    with pytest.raises(InputError, match="loads images was killed") as told:
        train(**options, callbacks=[KillWorkers()])
    assert "\n" not in str(told.value)
    losses = [entry["loss"] for entry in train(**options).metrics if "loss" in entry]
    whole = trained(data, tmp_path / "whole", "schedule.epochs=4")
    assert losses == [entry["loss"] for entry in whole.metrics if "loss" in entry]


def test_the_same_command_again_has_nothing_to_do(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = trained(data, tmp_path / "run")
    assert trained(data, tmp_path / "run").results == first.results
    assert "is complete" in capsys.readouterr().err
    with pytest.raises(
        InputError, match=r"holds a run with another seed \(\d there, 3 now\): choose"
    ):
        trained(data, tmp_path / "run", seed=3)


def test_fine_tuning_at_a_higher_resolution_and_transfer(data: Path, tmp_path: Path) -> None:
    base = trained(data, tmp_path / "base")
    larger = trained(data, tmp_path / "larger", image_size=48, weights=str(tmp_path / "base"))
    losses = [r.metrics[0]["loss"] for r in (base, larger)]
    assert losses[1] < losses[0] - 0.1  # it knows something already
    make_images(tmp_path / "other", 6, ("ant", "bee", "elk", "fox"))
    changes = {"data": str(tmp_path / "other"), "labels": None, "supervision": "labels"}
    moved = trained(data, tmp_path / "moved", weights=str(tmp_path / "base"), **changes)
    assert "token" not in moved.metrics[0]
    recipe = read_recipe(tmp_path / "moved/recipe.yaml")
    start = student.create_student(recipe, 4).state_dict()
    known = load_classifier(tmp_path / "base").model.state_dict()
    name = "backbone.blocks.0.attn.qkv.weight"
    assert torch.equal(start[name], known[name])


def test_changing_the_batch_size_says_what_becomes_of_the_rate(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = train_recipe(data=str(data / "images"), batch_size=32)
    told = " ".join(capsys.readouterr().err.split())
    assert "batch size 64 -> 32: learning rate 0.0005 -> 0.00025 (--scale linear" in told
    assert recipe.optimizer.lr == 0.00025


def test_warm_up_is_a_tenth_of_other_epochs_at_most_and_a_run_keeps_its_own(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def warmup(epochs: int, *settings: str) -> float:
        recipe = train_recipe(
            data=str(data / "images"), epochs=epochs, output=tmp_path, settings=settings
        )
        return recipe.schedule.warmup_epochs

    assert [warmup(epochs) for epochs in (2, 20, 60, 100)] == pytest.approx([0.2, 2, 5, 5])
    told = " ".join(capsys.readouterr().err.split())
    assert "epochs 100 -> 2: warm-up 5 -> 0.2 epochs" in told
    assert "100 -> 60" not in told
    assert warmup(2, "schedule.warmup_epochs=1") == 1
    begun = train_recipe(data=str(data / "images"), epochs=20)
    (tmp_path / "recipe.yaml").write_text(to_yaml(begun))
    assert warmup(40) == 2


def test_the_usual_recipe_starts_from_weights_where_there_are_any(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def chosen(**choices: Any) -> tuple[str, str | None]:
        recipe = train_recipe(data=str(data / "images"), output=tmp_path, **choices)
        return recipe.name, recipe.model.weights

    monkeypatch.setattr(reach, "out_of_reach", lambda _: None)
    assert chosen() == ("finetune", "pretrained")
    assert chosen(model="resnet18") == ("finetune", "pretrained")
    monkeypatch.setattr(reach, "out_of_reach", lambda _: "no connection")
    assert chosen(weights="mine.safetensors") == ("finetune", "mine.safetensors")
    assert "random weights" not in capsys.readouterr().err
    with pytest.raises(InputError, match="no images at nowhere"):
        train_recipe(data="nowhere", output=tmp_path)
    assert "random weights" not in capsys.readouterr().err
    assert chosen(model="resnet18") == ("starter", None)
    assert "no pretrained weights of resnet18 (no connection)" in " ".join(
        capsys.readouterr().err.split()
    )
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipes.get("finetune")))
    assert chosen() == ("finetune", "pretrained")  # a run that goes on keeps its own


def test_weights_in_a_folder_say_which_model_they_are_of(data: Path, tmp_path: Path) -> None:
    begun = recipes.get("small")
    begun = dataclasses.replace(begun, model=dataclasses.replace(begun.model, in_chans=4))
    run, folder = tmp_path / "run", tmp_path / "timm"
    for place in (run, folder):
        place.mkdir()
    (run / "recipe.yaml").write_text(to_yaml(begun))
    written = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": {"depth": 2, "img_size": [48, 32], "num_classes": 3, "in_chans": 3},
        "pretrained_cfg": {"input_size": [3, 48, 32], "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (folder / "config.json").write_text(json.dumps(written))

    def model(weights: Path, **choices: Any) -> Any:
        return train_recipe(data=str(data / "images"), weights=str(weights), **choices).model

    expected = dataclasses.replace(begun.model, weights=str(run), drop_path=0.1)
    assert model(run) == expected  # so do its checkpoints, and where the model is named
    assert model(run, model="lvvit_t") == expected
    assert model(run, recipe="finetune").image_size == 224
    assert model(run, model="resnet18").kwargs == {}
    found = model(folder)
    assert (found.name, found.kwargs) == ("vit_tiny_patch16_224", {"depth": 2})
    assert (found.image_size, found.in_chans, found.mean) == ((48, 32), 3, None)


def test_another_model_is_built_without_the_arguments_of_the_recipes_own(data: Path) -> None:
    def kwargs(recipe: str, model: str, *settings: str) -> dict[str, Any]:
        where = str(data / "images")
        made = train_recipe(data=where, recipe=recipe, model=model, settings=settings)
        return made.model.kwargs

    assert kwargs("small", "lvvit_t")["patch_size"] == 8
    assert kwargs("small", "test_vit") == {}
    assert kwargs("small", "lvvit_t", "model.name=test_vit", "model.kwargs.depth=1") == {"depth": 1}
    assert kwargs("relabel_resnet50", "resnet18") == {"heads": "class"}  # of the method


def test_a_model_without_stochastic_depth_trains_by_the_usual_recipes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = recipes.get("starter")
    model = dataclasses.replace(recipe.model, name="ghostnet_050", image_size=64)
    student.create_student(dataclasses.replace(recipe, model=model), 3)
    assert "no branch of ghostnet_050 can be dropped" in capsys.readouterr().err


def test_patches_must_divide_the_image() -> None:
    recipe = recipes.get("starter")
    values: Any = {"name": "vit_tiny_patch16_224", "kwargs": {"depth": 1}, "image_size": (64, 50)}
    model = dataclasses.replace(recipe.model, **values)
    with pytest.raises(InputError, match=r"of the model's patches of 16 .* choose 48 or 64"):
        student.create_student(dataclasses.replace(recipe, model=model), 3)


def test_what_is_chosen_by_an_option_is_in_the_recipe(data: Path) -> None:
    recipe = train_recipe(
        data=str(data / "images"), split="val", val_split="train", lr=1e-4, max_steps=3,
        batch_size=32, device="cpu", dtype="bfloat16",
    )  # fmt: skip
    assert (recipe.data.train_split, recipe.data.val_split) == ("val", "train")
    assert (recipe.optimizer.lr, recipe.schedule.max_steps) == (1e-4, 3)
    assert (recipe.engine.device, recipe.engine.precision) == ("cpu", "bf16")


def test_images_without_labels_are_counted_and_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words(arguments(data, tmp_path / "run")))
    told = " ".join(capsys.readouterr().out.split())
    assert "trained on 36 images" in told
    assert f"next: tokenlabel eval --data {data / 'images'} --split val" in told
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert (results["images"], results["left_out"]) == (36, {})


def test_every_set_counts_and_two_sources_of_labels_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["train", "--data", str(data / "images"), "--show", "--set", "seed=7", "log_every=3"]
    with pytest.raises(SystemExit) as done:
        main([*options, "--set", "optimizer.lr=0.25"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    assert "seed: 7" in shown
    assert "log_every: 3" in shown
    assert "lr: 0.25" in shown
    with pytest.raises(SystemExit) as done:
        main([*options[:3], "--annotator", "resnet10t", "--labels", str(data / "labels")])
    assert done.value.code == 2
    assert "choose one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "lvvit_x", "batch_size": 8}, "timm has no model 'lvvit_x'"),
        ({"batch_size": 500}, "36 images do not fill one batch of 500: choose a smaller one"),
    ],
    ids=["model", "batch"],
)
def test_what_no_labels_can_fix_is_refused_before_images_are_labeled(
    data: Path, tmp_path: Path, options: dict, said: str
) -> None:
    choices = {"data": str(data / "images"), "recipe": "small", "annotator": "no_such_annotator"}
    with pytest.raises(InputError, match=said):
        train(**choices, **options, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_that_cannot_teach_and_images_without_are_told(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data / "images", tmp_path / "images")
    broken = tmp_path / "images/train/cow/3.png"
    broken.write_bytes(broken.read_bytes()[:300])
    untrained = {
        "model": "timm.models.resnet:resnet10t",
        "model_kwargs": {"num_classes": 3},
        "network": {"image_size": 64, "device": "cpu"},
    }
    given = arguments(tmp_path, tmp_path / "run", labels=None, annotator=untrained)
    train(**given)
    said = capsys.readouterr().err
    assert "the annotator left out 1 of 36 images, cow/3.png for one (" in said
    assert "warning: The labels agree with only" in said
    assert "Do not train with these labels" in said


MISTAKES = [
    ({}, ("supervision.target=released",), "annotate with --codec exact"),
    ({"labels": None}, (), "needs labels: give --annotator MODEL or --labels STORE"),
    ({"model": "deit_tny_patch16_224"}, (), "did you mean 'deit_tiny"),
    ({"recipe": "starter_"}, (), "did you mean 'starter'"),
    ({"model": "lvvit_t", "image_size": 33}, (), "33"),
    ({"batch_size": 500}, (), "36 images do not fill one batch of 500"),
    ({"data": "/nowhere/images"}, (), "no images at /nowhere/images"),
    ({"val": "/nowhere/images"}, (), "no images at /nowhere/images"),
    ({"weights": "/nowhere/weights.pth"}, (), "no checkpoint at /nowhere/weights.pth"),
    ({}, ("optimizer.name=adamv",), "did you mean 'adam"),
    ({}, ("augment.policy=rund-m9",), "did you mean 'rand'"),
    ({}, ("trackers=[tensorbord]",), "did you mean 'tensorboard'"),
    ({}, ("schedule.warmup_epochs=2",), "warmup_epochs"),
    ({}, ("model.num_classes=5",), "has 3 classes"),
    ({}, ("supervision.class_weights=[1, 2]",), "2 values for 3 classes"),
    ({}, ("supervision.last_epochs_without_tokens=9",), "more than all 2 epochs"),
    ({}, ("supervision.online=true",), "needs an annotator"),
]


@pytest.mark.parametrize(("changes", "overrides", "told"), MISTAKES, ids=lambda value: str(value))
def test_a_mistake_is_one_clear_line_and_leaves_nothing(
    changes: dict[str, Any], overrides: tuple[str, ...], told: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=told) as mistake:
        trained(data, tmp_path / "run", *overrides, **changes)
    assert "\n" not in str(mistake.value)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_read_back_for_other_images(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path / "run")
    fewer = shutil.copytree(data / "images", tmp_path / "fewer")
    (fewer / "train/cat/0.png").unlink()
    with pytest.raises(InputError, match="started with other training images"):
        trained(data, tmp_path / "run", data=str(fewer))


def test_labels_of_other_images_are_refused(data: Path, tmp_path: Path) -> None:
    make_images(tmp_path / "others", 12)
    (tmp_path / "others/cat/0.png").rename(tmp_path / "others/cat/new.png")
    with pytest.raises(InputError, match=r"cat/new\.png"):
        trained(data, tmp_path / "run", "data.holdout=0", data=str(tmp_path / "others"))


def test_validation_images_of_other_classes_are_refused(data: Path, tmp_path: Path) -> None:
    make_images(tmp_path / "val", 2, ("cat", "cow", "pig"))
    with pytest.raises(
        InputError, match=r"val are not among the 3 of .*images \(part .train.\): pig"
    ):
        trained(data, tmp_path / "run", val=str(tmp_path / "val"))


def test_a_full_disk_is_told_and_the_run_goes_on_later(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any, **_options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    options = arguments(data, tmp_path / "run", "checkpoints.every_minutes=0")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_tensors", full)
        with pytest.raises(InputError, match="no space left"):
            train(**options)
    result = train(**options)
    assert result is not None
    assert result.results["updates"] == 6


def test_checkpoints_that_will_not_fit_are_told_before_the_first_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: list[int] = []

    def full(_place: Path, size: int) -> str:
        needed.append(size)
        return "no space"

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "short_of_space", full)
        with pytest.raises(InputError, match=r"no space: .*checkpoints\.keep=1"):
            trained(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    trained(data, tmp_path / "run")
    steps = list((tmp_path / "run/checkpoints").glob("step-*"))
    size = sum(file.stat().st_size for file in steps[0].iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "short_of_space", full)
        with pytest.raises(InputError):
            trained(data, tmp_path / "run", allow_changed=["schedule.epochs"], epochs=3)
    assert needed[0] == pytest.approx(4 * size, rel=0.2)  # two to keep, the best, the next
    assert needed[1] == pytest.approx((4 - len(steps)) * size, rel=0.3)  # beside those there are


def test_the_command_line_trains(data: Path, tmp_path: Path) -> None:
    options = arguments(data, tmp_path / "run", supervision="labels", epochs=2)
    with pytest.raises(SystemExit) as done:
        main(words(options))
    assert done.value.code == 0
    assert (tmp_path / "run/results.json").exists()


def test_curves_are_drawn_from_whatever_was_measured(tmp_path: Path) -> None:
    curves.draw_curves([], tmp_path, "nothing")
    assert not (tmp_path / "curves.png").exists()
    curves.draw_curves([{"update": 1, "loss": 2.0}, {"update": 2, "loss": 1.0}], tmp_path, "<b>")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 600
    page = (tmp_path / "curves.html").read_text()
    assert "&lt;b&gt;" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    (tmp_path / "curves.png").unlink()
    curves.draw_curves([{"update": 1, "val/map": 0.5}, {"update": 2, "val/knn": 0.4}], tmp_path, "")
    assert (tmp_path / "curves.png").exists()  # of students that have no top-1


def test_class_weights_keep_the_scale_of_the_loss(tmp_path: Path) -> None:
    for label, count in (("ant", 6), ("bee", 2)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8)).save(tmp_path / "images" / label / f"{number}.png")
    starter = recipes.get("starter")
    balanced = dataclasses.replace(starter.supervision, class_weights="balanced")
    recipe = dataclasses.replace(starter, supervision=balanced)
    source = open_source(str(tmp_path / "images"))
    weights = student._class_weights(recipe, source, 2)
    assert weights is not None
    assert weights.tolist() == pytest.approx([8 / 12, 2.0])
