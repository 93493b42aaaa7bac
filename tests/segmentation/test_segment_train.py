"""`segment train`, from a folder of pairs to a run, as a user runs it."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_segmenter import QUICK, main, train
from torch import nn

from tokenlabel.api import segment
from tokenlabel.api.segment.training import compose_recipe
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.errors import InputError
from tokenlabel.models import build_model
from tokenlabel.models.layout import image_shape
from tokenlabel.recipes.segmentation import get_segmentation_recipe
from tokenlabel.runs.recipe_file import to_yaml
from tokenlabel.segmentation.augment import PairAugmentation
from tokenlabel.segmentation.pairs import open_pairs
from tokenlabel.segmentation.task import SegmentationTask
from tokenlabel.segmentation.trained import create_segmenter, load_segmenter
from tokenlabel.training.signals import Preempted


def test_training_learns_and_leaves_its_results(trained: tuple[Path, Path]) -> None:
    results = json.loads((trained[1] / "results.json").read_text())
    assert results["best_miou"] > 0.8
    assert results["measures"]["val/pixel_accuracy"] > 0.85
    assert (results["backbone"], results["head"]) == ("resnet10t", "upernet")
    for name in ("curves.png", "first-batch.jpg", "answers.jpg"):
        assert (trained[1] / name).exists(), name


def test_two_classes_in_masks_of_0_and_255_are_not_a_success(
    trained: tuple[Path, Path], scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A class that occurs in no mask is named, and the mean over all classes counts it."""
    for mask in (scenes / "annotations" / "validation").glob("*.png"):
        values = np.asarray(Image.open(mask))
        Image.fromarray(np.where(values == 3, 0, values)).save(mask)
    found = segment.evaluate(data=scenes, checkpoint=trained[1])
    assert found.absent == ("pool",)
    assert found.miou_all <= found.miou
    main(["segment", "eval", "--data", str(scenes), "--checkpoint", str(trained[1])], 0)
    assert "the class 'pool' is in none of the masks" in capsys.readouterr().out
    for mask in (scenes / "annotations" / "validation").glob("*.png"):
        Image.new("L", (64, 48), 0).save(mask)
    with pytest.raises(InputError, match="no pixel of 3 masks"):
        segment.evaluate(data=scenes, checkpoint=trained[1])


def test_warm_up_is_a_tenth_of_other_updates_at_most_and_a_run_keeps_its_own(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def warmup(updates: int, *settings: str, output: Path = tmp_path / "none") -> int:
        chosen = compose_recipe(
            recipe="camvid_cpu", updates=updates, output=output, settings=settings
        )
        return chosen.schedule.warmup_updates

    assert [warmup(updates) for updates in (3, 55, 300, 450)] == [0, 5, 20, 20]
    told = " ".join(capsys.readouterr().err.split())
    assert "updates 450 -> 3: warm-up 20 -> 0 updates" in told
    assert "450 -> 300" not in told
    assert warmup(3, "schedule.warmup_updates=2") == 2
    words = ["segment", "train", "--data", str(scenes), "--recipe", "camvid_cpu"]
    words += ["--output", str(tmp_path / "run")]
    for text in QUICK:
        words += [] if "warmup" in text else ["--set", text]
    main([*words, "--updates", "3"], 0)
    main([*words, "--updates", "12", "--allow-changed", "schedule.updates"], 0)
    assert warmup(12, output=tmp_path / "run") == 0


@pytest.mark.parametrize("complete", [True, False])
def test_another_length_than_that_of_the_run_that_is_there_is_told_first(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], complete: bool
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    begun = compose_recipe(recipe="camvid_cpu", data=scenes, output=run)
    (run / "recipe.yaml").write_text(to_yaml(begun))
    if complete:
        (run / "results.json").write_text("{}")
    words = ["segment", "train", "--data", str(scenes), "--recipe", "camvid_cpu"]
    words += ["--output", str(run)]
    main([*words, "--updates", "2"], 2)
    told = " ".join(capsys.readouterr().err.split())
    held = "a complete run" if complete else "a run"
    assert f"holds {held} with another schedule.updates (450 there, 2 now): " in told
    assert "choose another output folder" in told
    assert "leaves nothing" not in told
    assert ("--allow-changed schedule.updates" in told) != complete, (
        "a complete run does not shrink"
    )
    main([*words, "--updates", "900"], 2)
    told = " ".join(capsys.readouterr().err.split())
    assert "(450 there, 900 now)" in told
    assert "--allow-changed schedule.updates" in told


def test_a_warm_up_that_leaves_nothing_is_refused(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"warmup_updates = 5 leaves nothing of 5 updates"):
        train(scenes, tmp_path / "run", 5, "schedule.warmup_updates=5")
    assert not (tmp_path / "run").exists()


def test_images_of_four_channels_and_16_bits(scenes: Path, tmp_path: Path) -> None:
    """Arrays of the colors in other places, and a channel that says nothing."""
    rng = np.random.default_rng(0)
    for part in ("training", "validation"):
        for file in (scenes / "images" / part).glob("*.png"):
            colors = np.asarray(Image.open(file).convert("RGB")).astype(np.uint16) * 16
            noise = rng.integers(0, 4096, colors.shape[:2])[..., None]
            np.save(file.with_suffix(".npy"), np.concatenate([noise, colors], 2).astype(np.uint16))
            file.unlink()
    run = tmp_path / "run"
    four = ("model.in_chans=4", "model.freeze=true", "augment.views=2", "augment.color=true")
    done = train(scenes, run, 3, *four)
    segmenter = load_segmenter(run)
    assert segmenter.rules.deep
    assert image_shape(segmenter.model.pyramid.backbone)[0] == 4
    found = segment.evaluate(data=scenes, checkpoint=run)
    assert found.miou == pytest.approx(done["best_miou"], abs=1e-6)
    image = next((scenes / "images" / "validation").glob("*.npy"))
    segment.predict(images=image, checkpoint=run, output=tmp_path / "out")
    assert Image.open(tmp_path / "out" / "overlays" / f"{image.stem}.png").mode == "RGB"
    weights = run / done["best_checkpoint"] / "model.safetensors"
    again = segment.evaluate(data=scenes, checkpoint=weights, recipe=str(run / "recipe.yaml"))
    assert again.miou == pytest.approx(found.miou, abs=1e-6)
    with pytest.raises(InputError, match="has 4 channels, and the model takes 3"):
        train(scenes, tmp_path / "rgb", 3)


def test_a_backbone_brings_its_channels(tmp_path: Path) -> None:
    """From a folder that timm or `tokenlabel export` wrote."""
    shown = {"input_size": [4, 32, 32], "mean": [0.1] * 4, "std": [0.2] * 4}
    config = {"architecture": "resnet10t", "model_args": {"in_chans": 4}, "pretrained_cfg": shown}
    (tmp_path / "config.json").write_text(json.dumps(config))
    chosen = compose_recipe(recipe="camvid_cpu", weights=str(tmp_path)).model
    assert (chosen.in_chans, chosen.mean, chosen.std) == (4, (0.1,) * 4, (0.2,) * 4)
    backbone = build_model(chosen.backbone, **chosen.arguments)
    assert Preprocessing.of_timm(backbone).mean == chosen.mean


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(scenes, tmp_path / "whole", 5)
    forward, passes = SegmentationTask.forward, []

    def stopping(self: SegmentationTask, *arguments: Any) -> Any:
        passes.append(1)
        if len(passes) == 3:
            signal.raise_signal(signal.SIGTERM)
        return forward(self, *arguments)

    monkeypatch.setattr(SegmentationTask, "forward", stopping)
    with pytest.raises(Preempted):
        train(scenes, tmp_path / "parts", 5)
    assert len(passes) == 3
    parts = train(scenes, tmp_path / "parts", 5)
    assert len(passes) == 5
    assert parts["measures"] == whole["measures"]
    files = [
        tmp_path / run / whole["checkpoint"] / "model.safetensors" for run in ("whole", "parts")
    ]
    weights = [load_file(file) for file in files]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_accumulated_passes_make_the_same_update(scenes: Path) -> None:
    """A loss over halves of a batch, averaged, is the loss over the batch (without batch norm)."""
    from tokenlabel.segmentation.loader import pair_loader

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Conv2d(3, 3, 1)

        def forward_heads(self, images: torch.Tensor) -> Any:
            from tokenlabel.segmentation.model import SegmentationOutput

            return SegmentationOutput(self.layer(images), self.layer(images))

    task = SegmentationTask(Linear(), mean=(0.5,) * 3, std=(0.2,) * 3)  # type: ignore[arg-type]
    pairs = open_pairs(scenes, "training")
    augment = PairAugmentation(crop=(32, 32), short_side=24, scale=(0.5, 1.0))
    whole = task(next(iter(pair_loader(pairs, augment, batch_size=8))))["loss"]
    halves = [task(batch)["loss"].detach() for batch in pair_loader(pairs, augment, batch_size=4)]
    assert float(sum(halves) / 2) == pytest.approx(float(whole.detach()), rel=1e-5)


def test_training_starts_from_a_student_of_another_size_and_classes(tmp_path: Path) -> None:
    """The backbone of what `tokenlabel train` leaves, its positions resized to the crop."""
    from tokenlabel.models import DenseModel

    thin = {"depth": 4, "embed_dim": 32, "num_heads": 2, "stem_width": 8}
    student = DenseModel("lvvit_t", 7, img_size=32, **thin)
    save_file(student.state_dict(), tmp_path / "student.safetensors")
    recipe = get_segmentation_recipe("camvid_transfer_smoke")
    model = dataclasses.replace(
        recipe.model, kwargs=thin, weights=str(tmp_path / "student.safetensors")
    )
    segmenter = create_segmenter(dataclasses.replace(recipe, model=model), 3, fresh=True)
    backbone = segmenter.pyramid.backbone
    for name in ("patch_embed.conv1.weight", "blocks.3.mlp.fc2.weight", "cls_token"):
        assert torch.equal(backbone.get_parameter(name), student.backbone.get_parameter(name))
    assert backbone.get_parameter("pos_embed").shape[1] == 1 + 16


def test_training_takes_the_student_of_a_folder(scenes: Path, tmp_path: Path) -> None:
    """A run's folder and an exported model tell their network; a few values may still be changed."""
    from tokenlabel.api.train import train as train_student
    from tokenlabel.cli.export import export

    thin = "model.kwargs={patch_size: 4, embed_dim: 32, depth: 4, num_heads: 2, stem_width: 8}"
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(3):  # of each class one is held out
            picture = Image.effect_noise((32, 32), 90 + index)
            picture.save(tmp_path / "photos" / name / f"{index}.png")
    student = tmp_path / "student"
    train_student(
        data=str(tmp_path / "photos"),
        output=student,
        model="lvvit_t",
        image_size=32,
        supervision="labels",
        mix="none",
        batch_size=4,
        epochs=1,
        workers=0,
        settings=(thin, "schedule.warmup_epochs=0", "trackers=[]", "engine.device=cpu"),
    )
    export(checkpoint=student, output=tmp_path / "exported")
    (average,) = student.glob("checkpoints/*/ema.safetensors")
    wanted = load_file(average)["backbone.blocks.2.mlp.fc1.weight"]
    for start in (student, tmp_path / "exported"):
        run = tmp_path / f"segment-{start.name}"
        segment.train(
            data=scenes,
            output=run,
            recipe="camvid_transfer",
            weights=str(start),
            updates=1,
            batch_size=2,
            workers=0,
            settings=("augment.crop=[32, 48]", "schedule.warmup_updates=0", "trackers=[]",
                       "optimizer.lr=1e-9", "engine.device=cpu"),
        )  # fmt: skip
        found = load_segmenter(run).model.pyramid.backbone
        assert found.get_parameter("pos_embed").shape == (1, 1 + 8 * 12, 32)
        weight = found.get_parameter("blocks.2.mlp.fc1.weight")
        assert torch.allclose(weight, wanted, atol=1e-6)


def test_a_run_does_not_go_on_with_other_images_or_masks(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scenes / "annotations" / "training" / "s7.png").unlink()
    train(scenes, tmp_path / "run", 3)
    assert "training: 7 scenes with masks; 1 without a mask, such as s7.png" in (
        capsys.readouterr().err
    )
    file = scenes / "annotations" / "training" / "s1.png"
    mask = Image.open(file).copy()
    Image.new("L", mask.size, 1).save(file)
    with pytest.raises(InputError, match="started with other training images"):
        train(scenes, tmp_path / "run", 3)
    mask.save(file)
    assert train(scenes, tmp_path / "run", 3)["left_out"] == {"images without a mask": 1}


def test_faults_are_named_before_anything_is_written(scenes: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with pytest.raises(InputError, match=r"did you mean 'lvvit_s_upernet_ade20k'"):
        segment.train(data=scenes, output=output, recipe="lvvit_s_upernet_ade20")
    with pytest.raises(InputError, match=r"unknown key 'chanels'.*did you mean 'channels'"):
        train(scenes, output, 5, "model.chanels=4")
    with pytest.raises(InputError, match=r"test_resnet \(.*: give --weights FILE, or leave"):
        train(scenes, output, 5, "model.backbone=test_resnet", "model.weights=pretrained")
    with pytest.raises(InputError, match="leaves gaps"):
        train(scenes, output, 5, "test.window=32", "test.stride=33")
    mask = scenes / "annotations" / "validation" / "s2.png"
    good = mask.read_bytes()
    Image.new("L", (64, 48), 9).save(mask)
    with pytest.raises(InputError, match=r"s2\.png holds the value 9"):
        train(scenes, output, 5)
    Image.new("L", (63, 48), 1).save(mask)
    with pytest.raises(InputError, match=r"64x48 pixels, but its mask .*s2\.png has 63x48"):
        train(scenes, output, 5)
    mask.write_bytes(good)
    for part in ("images", "annotations"):
        for kind in ("training", "validation"):
            for file in sorted((scenes / part / kind).iterdir()):
                file.rename(scenes / part / file.name)
            (scenes / part / kind).rmdir()
    with pytest.raises(InputError, match="has no 'validation' of its own"):
        train(scenes, output, 5)
    assert not output.exists()


def test_folders_that_hold_no_student_are_named(
    scenes: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="holds no run of `tokenlabel train`"):
        segment.train(data=scenes, output=tmp_path / "run", weights=str(trained[1]))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"architectures": ["Other"]}')
    with pytest.raises(InputError, match=r"config\.json names no timm model"):
        segment.train(data=scenes, output=tmp_path / "run", weights=str(tmp_path / "other"))
