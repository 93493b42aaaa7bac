"""`segment eval`, of runs and files of weights, as a user runs it."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_segmenter import main, train

from tokenlabel.annotators.kinds import read_spec
from tokenlabel.api import segment
from tokenlabel.errors import InputError
from tokenlabel.runs.open import open_run
from tokenlabel.runs.recipe_file import to_yaml
from tokenlabel.segmentation.evaluate import evaluate_pairs
from tokenlabel.segmentation.pairs import open_pairs
from tokenlabel.segmentation.recipe import SegmentationRecipe
from tokenlabel.segmentation.trained import load_segmenter


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


def test_eval_says_what_it_lacks(trained: tuple[Path, Path], tmp_path: Path) -> None:
    scenes, run = trained
    with pytest.raises(InputError, match="is not a run"):
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
