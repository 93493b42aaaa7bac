"""The contact sheet shows the very samples that training draws."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel.cli.view_batch import view_batch
from tokenlabel.data.augment import Augmentation
from tokenlabel.data.loader import train_loader
from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore
from tokenlabel.pictures.colors import class_colors


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "3a", "augmix-m3-w3", "trivial", None])
def test_students_column_is_the_loaders_batch(
    source: ImageSource,
    make_labels: Callable[..., LabelStore],
    tmp_path: Path,
    policy: str | None,
) -> None:
    labels = make_labels()
    path = view_batch(
        data=str(source.root),  # type: ignore[attr-defined]
        labels=labels.location,
        output=tmp_path / "out" / "sheet.png",
        count=5,
        model="test_vit",
        image_size=64,
        settings=(
            (f"augment.policy={json.dumps(policy)}", "augment.erasing=0.25", "seed=3"),
            ("augment.scale=[0.08, 1.0]", "data.holdout=0"),
        ),
        epoch=2,
    )
    sheet = np.asarray(Image.open(path))
    half = (0.5, 0.5, 0.5)  # of this model's normalization, which erasing follows
    augmentation = Augmentation(policy=policy, erasing=0.25, mean=half, std=half)
    loader = train_loader(source, augmentation, image_size=(64, 64), batch_size=5, seed=3)
    batch = next(loader.epoch(2))
    side = 3 * 64  # enlarged by a whole number
    left = 8 + 2 * (side + 8)
    assert sheet.shape[1] == 4 * (side + 8) + 8
    for i in range(5):
        top = 28 + i * (side + 28) + 20
        column = sheet[top : top + side, left : left + side]
        seen = batch.images[i].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(column, seen.repeat(3, 0).repeat(3, 1))
        colored = sheet[top : top + side, left + side + 8 : left + 2 * side + 8]
        assert (colored != column).any()


def test_without_labels_there_are_two_columns(
    source: ImageSource, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(source.root)  # type: ignore[attr-defined]
    settings = (("data.holdout=0",),)
    path = view_batch(
        data=root, model="test_vit", output=tmp_path / "sheet.png", count=100, image_size=32,
        settings=settings,
    )  # fmt: skip
    assert Image.open(path).size == (2 * 168 + 8, 28 + 26 * 188)
    assert f"written to {path}" in capsys.readouterr().out
    with pytest.raises(InputError, match="at least 1"):
        view_batch(data=root, count=0)
    with pytest.raises(InputError, match="--data to draw from, or the --run"):
        view_batch()


def test_masked_tokens_keep_the_pictures_colors() -> None:
    from tokenlabel.pictures.sheet import cells_over

    picture = Image.new("RGB", (4, 2), (10, 20, 30))
    shares = torch.tensor([[0.0, 1.0]])
    pixels = np.asarray(cells_over(picture, torch.tensor([[3, 3]]), shares, class_colors(9)))
    assert (pixels[:, :2] == (10, 20, 30)).all()
    assert (pixels[:, 2:] != (10, 20, 30)).any()
