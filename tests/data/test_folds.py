"""Folds depend on the key alone, keep groups together, and leave no class unseen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokenlabel.data.folds import folds_of
from tokenlabel.data.open import open_source
from tokenlabel.data.source import Subset
from tokenlabel.errors import InputError


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of each of 16 videos, in two classes, and a list of them."""
    folder = tmp_path_factory.mktemp("frames")
    lines = ["path,label,camera"]
    for number in range(64):
        video, frame = divmod(number, 4)
        key = f"{('ant', 'bee')[video % 2]}/v{video}_{frame}.png"
        (folder / key).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / key)
        lines.append(f"{key},{key[:3]},c{video // 2}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_fold_is_of_the_key_alone(images: Path) -> None:
    source = open_source(str(images))
    folds = dict(zip(source.keys, folds_of(source, str(images), 3), strict=True))
    part = Subset.of(source, list(range(0, 64, 2))[::-1])
    again = dict(zip(part.keys, folds_of(part, str(images), 3), strict=True))
    assert again == {key: folds[key] for key in part.keys}
    assert min(Counter(folds.values()).values()) > 10


@pytest.mark.parametrize("pattern", ["v[0-9]+", "/(v[0-9]+)_"])
def test_a_pattern_keeps_the_frames_of_a_video_together(images: Path, pattern: str) -> None:
    source = open_source(str(images))
    folds = folds_of(source, str(images), 2, pattern)
    by_video: dict[str, set[int]] = {}
    for key, fold in zip(source.keys, folds, strict=True):
        by_video.setdefault(key.split("_")[0], set()).add(fold)
    assert all(len(found) == 1 for found in by_video.values())
    assert set(folds) == {0, 1}


def test_a_column_keeps_its_values_together(images: Path) -> None:
    location = str(images / "list.csv")
    source = open_source(location)
    folds = folds_of(source, location, 2, "camera")
    cameras = [int(key.split("v")[1].split("_")[0]) // 2 for key in source.keys]
    assert len(set(zip(cameras, folds, strict=True))) == 8


def test_what_cannot_be_divided_is_refused(images: Path) -> None:
    source, location = open_source(str(images)), str(images)
    for group, said in (
        ("w[0-9]", "found nowhere"),
        ("(", "not a regular"),
        ("[a-z]+/", "fall into one"),
    ):
        with pytest.raises(InputError, match=said):
            folds_of(source, location, 2, group)
    with pytest.raises(InputError, match="do not fill 200 folds"):
        folds_of(source, location, 200)
