"""The three verbs, from a folder of pairs to overlays, as a user runs them."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from tokenlabel.annotators.kinds import read_spec
from tokenlabel.api import segment
from tokenlabel.api.segment.training import compose_recipe
from tokenlabel.cli.main import VERBS
from tokenlabel.cli.main import main as command_line
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.errors import InputError
from tokenlabel.models import build_model
from tokenlabel.models.layout import image_shape
from tokenlabel.recipes.segmentation import get_segmentation_recipe
from tokenlabel.runs.open import open_run
from tokenlabel.runs.recipe_file import to_yaml
from tokenlabel.segmentation.augment import PairAugmentation
from tokenlabel.segmentation.evaluate import evaluate_pairs
from tokenlabel.segmentation.pairs import open_pairs
from tokenlabel.segmentation.recipe import SegmentationRecipe
from tokenlabel.segmentation.task import SegmentationTask
from tokenlabel.segmentation.trained import create_segmenter, load_segmenter
from tokenlabel.training.signals import Preempted

QUICK = (
    "augment.crop=[32, 32]",
    "augment.color=false",
    "test.short_side=48",
    "test.window=null",
    "model.kwargs={channels: [8, 8, 16, 16], stem_width: 8}",
    "model.channels=8",
    "schedule.batch_size=4",
    "schedule.warmup_updates=2",
    "loss.class_balance=0",
    "optimizer.name=adamw",
    "optimizer.lr=0.01",
    "trackers=[]",
    "data.workers=0",
    "engine.precision=fp32",
)


def train(scenes: Path, output: Path, updates: int, *more: str) -> dict[str, Any]:
    result = segment.train(
        data=scenes,
        output=output,
        recipe="camvid_cpu",
        updates=updates,
        settings=(*QUICK, *more),
    )
    return result.results


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, make_scenes: Callable[[Path], None]
) -> tuple[Path, Path]:
    """A data set and the run of a small network on it."""
    root = tmp_path_factory.mktemp("segment")
    make_scenes(root / "scenes")
    train(root / "scenes", root / "run", 45)
    return root / "scenes", root / "run"


def test_training_learns_and_leaves_its_results(trained: tuple[Path, Path]) -> None:
    results = json.loads((trained[1] / "results.json").read_text())
    assert results["best_miou"] > 0.8
    assert results["measures"]["val/pixel_accuracy"] > 0.85
    assert (results["backbone"], results["head"]) == ("resnet10t", "upernet")
    for name in ("curves.png", "first-batch.jpg", "answers.jpg"):
        assert (trained[1] / name).exists(), name


def test_eval_agrees_with_training_and_writes_the_table(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    scenes, run = trained
    found = segment.evaluate(data=scenes, checkpoint=run, output=tmp_path)
    results = json.loads((run / "results.json").read_text())
    assert found.miou == pytest.approx(results["best_miou"])
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["miou"] == found.miou
    assert written["class_iou"] == found.class_iou
    with (tmp_path / "table.csv").open() as stream:
        ious = [float(row["iou"]) for row in csv.DictReader(stream)]
    assert np.mean(ious) == pytest.approx(found.miou, abs=1e-5)
    assert found.absent == ()
    assert found.images == 3
    assert (tmp_path / "table.png").exists()


def test_two_runs_are_compared_scene_by_scene(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes, run = trained
    train(scenes, tmp_path / "short", 3)
    words = ["segment", "compare", "--data", str(scenes), "--checkpoints", str(run)]
    words += ["--against", str(tmp_path / "short"), "--output", str(tmp_path / "new" / "c.json")]
    main(words, 0)
    printed = capsys.readouterr().out
    assert "of 3 scenes, 3 are better and 0 are worse" in printed
    assert "over scenes only, of these two runs" in printed
    written = json.loads((tmp_path / "new" / "c.json").read_text())
    one, other = (segment.evaluate(data=scenes, checkpoint=r) for r in (run, tmp_path / "short"))
    gap = written["differences"]["miou"]
    assert gap["mean"] == pytest.approx(one.miou - other.miou)
    assert gap["interval"][0] < gap["mean"] < gap["interval"][1]
    assert f"miou  {one.miou:.4f} against {other.miou:.4f}: {gap['mean']:+.4f}" in printed
    weights = next((run / "checkpoints").glob("step-*/model.safetensors"))
    kept = segment.compare(
        data=scenes, checkpoints=[weights, run], against=[run, weights],
        recipe=str(run / "recipe.yaml"),
    )  # fmt: skip
    assert kept.differences["miou"].mean == pytest.approx(0, abs=1e-9)
    assert "over 2 pairs of runs" in kept.note
    low, high = one.intervals["boundary_iou"]
    assert low <= one.boundary_iou <= high
    assert sorted(written["scenes"]) == ["s0.png", "s1.png", "s2.png"]
    assert one.folder is not None
    assert (one.folder / "scenes.csv").read_text().startswith("scene,miou,")


def test_scenes_without_labels_and_runs_of_other_classes_are_not_compared(
    trained: tuple[Path, Path], scenes: Path, tmp_path: Path
) -> None:
    run = trained[1]
    Image.new("L", (64, 48), 0).save(scenes / "annotations" / "validation" / "s1.png")
    found = segment.compare(data=scenes, checkpoints=[run], against=[run])
    assert sorted(found.scenes) == ["s0.png", "s2.png"]
    names = tmp_path / "names.json"
    names.write_text('["corner", "wall", "grass", "pool"]')
    train(scenes, tmp_path / "run", 3, f"data.classes={names}", "data.ignore_index=255")
    with pytest.raises(InputError, match="trained on different classes"):
        segment.compare(data=scenes, checkpoints=[run], against=[tmp_path / "run"])


def test_evaluations_of_different_things_are_kept_apart(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    scenes, run = trained
    step = run / json.loads((run / "results.json").read_text())["best_checkpoint"]
    folders = [
        segment.evaluate(data=scenes, checkpoint=run, **options).folder
        for options in (
            {},
            {"whole": True},  # the recipe's own
            {"window": 32, "stride": 21},
            {"scales": (0.5, 1.0)},
            {"flip": True},
            {"split": "training"},
            {"settings": ("test.short_side=40",)},
        )
    ]
    assert folders[0] == folders[1]
    assert len(set(folders)) == 6
    assert segment.evaluate(data=scenes, checkpoint=step).folder == folders[0]
    assert {folder.parent for folder in folders} == {run / "evaluation"}  # type: ignore[union-attr]
    assert "32x21" in folders[2].name  # type: ignore[union-attr]
    assert len(open_run(run, SegmentationRecipe).evaluations()) == 6


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
    assert "1 of 3 classes occur in none of 3 masks: pool" in capsys.readouterr().out
    for mask in (scenes / "annotations" / "validation").glob("*.png"):
        Image.new("L", (64, 48), 0).save(mask)
    with pytest.raises(InputError, match="no pixel of 3 masks"):
        segment.evaluate(data=scenes, checkpoint=trained[1])


def main(arguments: list[str], expected: int) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line(arguments)
    assert ended.value.code == expected


def test_the_commands_say_what_they_found_and_wrote(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes, run = trained
    words = ["segment", "train", "--data", str(scenes), "--output", str(tmp_path / "run")]
    words += ["--recipe", "camvid_cpu", "--updates", "3"]
    for text in QUICK:
        words += ["--set", text]
    main(words, 0)
    streams = capsys.readouterr()
    assert "best mIoU 0." in streams.out
    assert f"the run: {tmp_path / 'run'}" in streams.out
    hint = streams.out.rpartition("next: tokenlabel ")[2].strip()
    assert hint == f"segment eval --data {scenes} --checkpoint {tmp_path / 'run'}"
    assert "starts from RANDOM weights" in streams.err
    main(["segment", "eval", "--data", str(scenes), "--checkpoint", str(run)], 0)
    printed = capsys.readouterr().out
    summary = segment.evaluate(data=scenes, checkpoint=run)
    assert f"miou {summary.miou:.4f}" in printed
    assert f"{summary.folder}: results.json" in printed
    images = str(scenes / "images" / "validation")
    output = str(tmp_path / "out")
    main(
        ["segment", "predict", "--images", images, "--checkpoint", str(run), "--output", output], 0
    )
    assert f"{output}: 3 images in labels/" in capsys.readouterr().out


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


def test_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['transformers'] = None\n"
        "from tokenlabel.cli.main import main\n"
        f"main(['segment', 'train', '--data', {str(tmp_path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "tokenlabel: segmentation takes its heads from transformers: pip install 'tokenlabel[seg]'"
    ]


def test_a_picture_is_read_as_those_of_the_training_were(scenes: Path, tmp_path: Path) -> None:
    """Deep images of one range: a dark picture alone would be taken for a bright one of 8 bits."""
    for part in ("training", "validation"):
        for file in (scenes / "images" / part).glob("*.png"):
            grey = np.asarray(Image.open(file).convert("L")).astype(np.uint16)
            Image.fromarray(grey * 16).save(file)
    train(scenes, tmp_path / "run", 3)
    run = load_segmenter(tmp_path / "run")
    assert run.rules.integers == (0, 4095)
    facts = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert facts["decode"]["integers"] == [0, 4095]
    assert facts["masks"]["validation"]["absent"] == []
    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((48, 64), 200, np.uint16)).save(photo)
    segment.predict(images=photo, checkpoint=tmp_path / "run", output=tmp_path / "out")
    shown = np.asarray(Image.open(tmp_path / "out" / "overlays" / "photo.png")).astype(int)
    labels = np.asarray(Image.open(tmp_path / "out" / "labels" / "photo.png"))
    one = shown[labels == labels[0, 0]][0]
    segment.predict(images=photo, checkpoint=tmp_path / "run", output=tmp_path / "again")
    assert abs(one - shown[0, 0]).max() == 0
    assert shown.min(-1).max() <= 128 + 200 // 16  # half the color, half of a dark grey


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


def test_a_file_of_weights_measures_as_its_run(trained: tuple[Path, Path]) -> None:
    scenes, run = trained
    results = json.loads((run / "results.json").read_text())
    weights = run / results["best_checkpoint"] / "model.safetensors"
    found = segment.evaluate(data=scenes, checkpoint=weights, recipe=str(run / "recipe.yaml"))
    assert found.miou == pytest.approx(results["best_miou"])


def test_a_file_of_weights_in_half_precision_measures_and_predicts(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    """The form in which the proof's networks are kept: weights, recipe and class list."""
    scenes, run = trained
    opened = open_run(run, SegmentationRecipe)
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in
            load_file(opened.weights()).items()}  # fmt: skip
    file, recipe = tmp_path / "kept" / "model.safetensors", tmp_path / "kept" / "recipe.yaml"
    file.parent.mkdir()
    save_file(half, file)
    recipe.write_text(to_yaml(opened.recipe))
    given = {"checkpoint": file, "recipe": str(recipe)}
    found = segment.evaluate(data=scenes, **given)
    assert found.miou == pytest.approx(segment.evaluate(data=scenes, checkpoint=run).miou, abs=0.02)
    photos = scenes / "images" / "validation"
    with pytest.raises(InputError, match="has no class list"):
        segment.predict(images=photos, output=tmp_path / "out", **given)
    (file.parent / "classes.json").write_text((scenes / "classes.json").read_text())
    with pytest.raises(InputError, match=r"which mask values .* --ignore-index 0"):
        segment.predict(images=photos, output=tmp_path / "out", **given)
    segment.predict(images=photos, ignore_index=0, output=tmp_path / "out", **given)
    labels = np.asarray(Image.open(tmp_path / "out" / "labels" / "s0.png"))
    mask = np.asarray(Image.open(scenes / "annotations" / "validation" / "s0.png"))
    assert (labels == mask)[mask > 0].mean() > 0.8
    recipe.write_text(to_yaml(opened.recipe).replace("layout: null", "layout: ade20k"))
    segment.predict(images=photos, output=tmp_path / "again", **given)
    assert (np.asarray(Image.open(tmp_path / "again" / "labels" / "s0.png")) == labels).all()
    with pytest.raises(InputError, match="--recipe"):
        segment.predict(images=photos, checkpoint=file, output=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_eval_reads_masks_as_the_training_did(scenes: Path, tmp_path: Path) -> None:
    """Neither the data's class list nor its layout's ignore index, where the run had its own."""
    names = tmp_path / "names.json"
    names.write_text('["corner", "wall", "grass", "pool"]')
    own = (f"data.classes={names}", "data.ignore_index=255")
    done = train(scenes, tmp_path / "run", 3, *own)
    found = segment.evaluate(data=scenes, checkpoint=tmp_path / "run")
    assert found.miou == pytest.approx(done["best_miou"], abs=1e-6)
    weights = tmp_path / "run" / done["best_checkpoint"] / "model.safetensors"
    recipe = str(tmp_path / "run" / "recipe.yaml")
    found = segment.evaluate(data=scenes, checkpoint=weights, recipe=recipe)
    assert found.miou == pytest.approx(done["best_miou"], abs=1e-6)
    with pytest.raises(InputError, match=r"values 0 to 3 and 255 is .* values 1 to 4 and 0 is unl"):
        segment.evaluate(data=scenes, checkpoint=tmp_path / "run", ignore_index=0)


def test_eval_takes_windows_scales_and_mirror_images(trained: tuple[Path, Path]) -> None:
    scenes, run = trained
    slid = segment.evaluate(data=scenes, checkpoint=run, window=32, stride=21)
    assert slid.miou > 0.6
    scales = segment.evaluate(data=scenes, checkpoint=run, scales=segment.MULTI_SCALE, flip=True)
    assert scales.miou > 0.6


def test_neither_batch_size_nor_ranks_change_the_result(trained: tuple[Path, Path]) -> None:
    scenes, run = trained

    @dataclasses.dataclass
    class Rank:
        rank: int
        count: int
        first: bool = False

        def sum(self, tensor: torch.Tensor) -> torch.Tensor:
            return tensor

    pairs = open_pairs(scenes, "validation")

    def confusion(batch: int, ranks: int) -> torch.Tensor:
        plan = {"window": 32, "stride": 16, "batch": batch}
        segmenter = load_segmenter(run).segmenter(torch.device("cpu"), **plan)
        parts = [evaluate_pairs(segmenter, pairs, Rank(r, ranks)) for r in range(ranks)]  # type: ignore[arg-type]
        return sum((part.scenes for part in parts), torch.zeros(3, 3, 6, dtype=torch.int64))

    alone = confusion(4, 1)
    assert int(alone[..., 1].sum()) == 3 * (48 * 64 - 16)
    for ranks in (2, 4):  # of four, one has nothing to do
        assert torch.equal(confusion(4, ranks), alone)
    for batch in (1, 9):
        assert (
            int((confusion(batch, 1) - alone)[..., :3].abs().sum()) <= 4
        )  # sums round differently


def test_predictions_read_as_masks_of_the_data_set(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    scenes, run = trained
    images = scenes / "images" / "validation"
    for name, mode in [("grey", "L"), ("clear", "RGBA")]:
        Image.open(images / "s0.png").convert(mode).save(tmp_path / f"{name}.png")
    segment.predict(images=images, checkpoint=run, output=tmp_path / "out", tile=40)
    mask = np.asarray(Image.open(scenes / "annotations" / "validation" / "s1.png"))
    found = np.asarray(Image.open(tmp_path / "out" / "labels" / "s1.png"))
    assert found.shape == mask.shape
    assert set(np.unique(found)) <= {1, 2, 3}
    assert (found == mask)[mask > 0].mean() > 0.8
    painted = np.asarray(Image.open(tmp_path / "out" / "overlays" / "s1.png"))
    assert painted.shape == (*mask.shape, 3)
    assert (tmp_path / "out" / "legend.png").exists()
    segment.predict(images=tmp_path / "grey.png", checkpoint=run, output=tmp_path / "grey")
    segment.predict(images=tmp_path / "clear.png", checkpoint=run, output=tmp_path / "clear")
    clear = np.asarray(Image.open(tmp_path / "clear" / "labels" / "clear.png"))
    first = np.asarray(Image.open(tmp_path / "out" / "labels" / "s0.png"))
    assert (clear == first).mean() > 0.999


def test_predictions_among_the_pictures_are_not_segmented_again(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    scenes, run = trained
    Image.open(scenes / "images" / "validation" / "s0.png").save(tmp_path / "photo.png")
    for _ in range(2):
        segment.predict(images=tmp_path, checkpoint=run, output=tmp_path / "segmented")
    written = sorted(path.name for path in (tmp_path / "segmented").rglob("*.png"))
    assert written == ["legend.png", "photo.png", "photo.png"]
    for _ in range(2):  # beside the pictures themselves, and below a folder of results
        assert segment.predict(images=tmp_path, checkpoint=run, output=tmp_path).images == 4
    with pytest.raises(InputError, match="choose another output folder"):
        segment.predict(images=tmp_path / "labels", checkpoint=run, output=tmp_path)


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
    (tmp_path / "run" / "results.json").unlink()
    file = scenes / "annotations" / "training" / "s1.png"
    mask = Image.open(file).copy()
    Image.new("L", mask.size, 1).save(file)
    with pytest.raises(InputError, match="begun with other training images"):
        train(scenes, tmp_path / "run", 3)
    mask.save(file)
    assert train(scenes, tmp_path / "run", 3)["left_out"] == {"images without a mask": 1}


# -- what users get wrong --------------------------------------------------------------------------


def test_faults_are_named_before_anything_is_written(scenes: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with pytest.raises(InputError, match=r"did you mean 'lvvit_s_upernet_ade20k'"):
        segment.train(data=scenes, output=output, recipe="lvvit_s_upernet_ade20")
    with pytest.raises(InputError, match=r"unknown key 'chanels'.*did you mean 'channels'"):
        train(scenes, output, 5, "model.chanels=4")
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


def test_masks_beside_the_pictures_are_left_out(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes, run = trained
    pairs, output = tmp_path / "pairs", tmp_path / "out"
    pairs.mkdir()
    picture = Image.open(scenes / "images" / "validation" / "s0.png")
    mask = Image.open(scenes / "annotations" / "validation" / "s0.png")
    picture.save(pairs / "a.jpg")
    mask.save(pairs / "a.png")
    picture.save(pairs / "b.png")
    mask.convert("P").save(pairs / "b_mask.png")
    picture.save(pairs / "wine_label.png")  # whose picture is not there
    picture.save(pairs / "b_seg.png")  # in color
    words = ["segment", "predict", "--images", str(pairs), "--checkpoint", str(run)]
    main([*words, "--output", str(output)], 0)
    written = sorted(path.name for path in (output / "labels").iterdir())
    assert written == ["a.png", "b.png", "b_seg.png", "wine_label.png"]
    printed = capsys.readouterr().out
    assert f"{output}: 4 images in labels/" in printed
    assert "2 masks beside them are left out" in printed


def test_namesakes_are_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    with pytest.raises(InputError, match=r"a\.jpg and another image"):
        segment.predict(images=tmp_path, checkpoint=trained[1], output=tmp_path / "out")


def test_folders_that_hold_no_student_are_named(
    scenes: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="holds no run of `tokenlabel train`"):
        segment.train(data=scenes, output=tmp_path / "run", weights=str(trained[1]))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"architectures": ["Other"]}')
    with pytest.raises(InputError, match=r"config\.json names no timm model"):
        segment.train(data=scenes, output=tmp_path / "run", weights=str(tmp_path / "other"))


def test_eval_says_what_it_lacks(trained: tuple[Path, Path], tmp_path: Path) -> None:
    scenes, run = trained
    with pytest.raises(InputError, match="is no run"):
        segment.evaluate(data=scenes, checkpoint=tmp_path)
    weights = next((run / "checkpoints").glob("step-*/model.safetensors"))
    with pytest.raises(InputError, match=r"a run of another kind.*'loss'.*`annotate segmenter`"):
        read_spec({"model": str(run)}).build(["wall", "grass", "pool"])
    with pytest.raises(InputError, match="is a file of weights: give its run"):
        segment.evaluate(data=scenes, checkpoint=weights)
    other = tmp_path / "classes.json"
    other.write_text('["a", "b", "c", "d"]')
    with pytest.raises(InputError, match=r"knows 3 classes and .* has 4"):
        segment.evaluate(data=scenes, checkpoint=run, classes=other)
    with pytest.raises(InputError, match="--whole shows no windows"):
        segment.evaluate(data=scenes, checkpoint=run, whole=True, stride=8)
    with pytest.raises(InputError, match="no images at"):
        segment.predict(images=tmp_path / "nothing", checkpoint=run)


def test_the_verbs_are_listed() -> None:
    for verb in ("train", "eval", "predict"):
        module, _, name = VERBS[f"segment {verb}"][0].partition(":")
        assert getattr(importlib.import_module(module), name).__doc__
