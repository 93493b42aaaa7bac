"""Scenes are what they say: balanced, repeatable, with true masks, from divided scans."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokenlabel.errors import InputError
from tokenlabel.quickstart.scenes import (
    BACKGROUND,
    SceneOptions,
    compose_scene,
    split_scans,
    write_scenes,
)

OPTIONS = SceneOptions(others=2)


def test_training_and_held_out_scans_are_different_scans() -> None:
    (train, train_labels), (test, test_labels) = split_scans()
    assert len(train) + len(test) == 1797
    assert {scan.tobytes() for scan in train}.isdisjoint(scan.tobytes() for scan in test)
    assert set(train_labels) == set(test_labels) == set(range(10))


def test_the_mask_shows_the_main_digit_and_the_others() -> None:
    scans, _ = split_scans()
    for i in range(20):
        scene = compose_scene(scans, i % 10, np.random.default_rng([3, i]), OPTIONS)
        digits, areas = np.unique(scene.mask[scene.mask != BACKGROUND], return_counts=True)
        assert scene.label == i % 10
        assert digits[areas.argmax()] == scene.label  # the main digit is laid last and largest
        assert len(digits) <= 1 + OPTIONS.others
        inked = scene.image.mean(-1)[scene.mask == scene.label].mean()
        assert inked > scene.image.mean(-1)[scene.mask == BACKGROUND].mean() + 20


def test_the_same_seed_writes_the_same_folder(tmp_path: Path) -> None:
    scans, _ = split_scans()
    for name in ("a", "b"):
        write_scenes(tmp_path / name, scans, 20, 7, OPTIONS, "scenes")
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.png"))
    assert len(files) == 40
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert [len(list((tmp_path / "a/images" / str(d)).iterdir())) for d in range(10)] == [2] * 10
    assert not (tmp_path / "a.partial").exists()


def test_an_interrupted_folder_is_not_taken_for_whole(tmp_path: Path, monkeypatch) -> None:
    scans, _ = split_scans()
    written = []

    def save(self: Image.Image, path: Path) -> None:
        written.append(path)
        if len(written) > 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "a", scans, 20, 7, OPTIONS, "scenes")
    assert not (tmp_path / "a").exists()


def test_without_scikit_learn_the_demo_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"pip install 'tokenlabel\[demo\]'"):
        split_scans()
