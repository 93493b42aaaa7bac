"""`segment predict`, from pictures to masks and overlays, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_segmenter import main, train

from tokenlabel.api import segment
from tokenlabel.errors import InputError
from tokenlabel.segmentation.trained import load_segmenter


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
    assert f"written to {output}: labels/, overlays/, legend.png (4 images)" in printed
    assert "2 masks beside them are left out" in printed


def test_namesakes_are_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    with pytest.raises(InputError, match=r"a\.jpg and another image"):
        segment.predict(images=tmp_path, checkpoint=trained[1], output=tmp_path / "out")
