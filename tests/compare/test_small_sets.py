"""`tl.compare` on ten small data sets of scenes: labels that know the scene, and labels that are noise.

An image's class is that of its large square; smaller squares of other classes stand beside it. Good
labels say which square is where. Bad ones name one class, drawn anew for each image, in every cell.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tokenlabel as tl

CLASSES, SIDE, CELL = 6, 32, 4
NAMES = tuple(f"kind{number}" for number in range(CLASSES))
TRAIN, VAL = 240, 600


def scene(random: np.random.Generator, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Pixels [32, 32, 3], the class of each cell of 4 pixels (-1: background), the image's class."""
    pixels = random.integers(60, 196, (SIDE, SIDE, 3))
    cells = np.full((SIDE // CELL, SIDE // CELL), -1)
    main, *others = random.choice(CLASSES, 4, replace=False)
    for kind, size in [*((other, 2) for other in others), (main, 3)]:
        row, column = random.integers(0, SIDE // CELL - size + 1, 2)
        cells[row : row + size, column : column + size] = kind
    for row, column in np.argwhere(cells >= 0):
        area = (slice(CELL * row, CELL * row + CELL), slice(CELL * column, CELL * column + CELL))
        noise = random.integers(-110, 111, (CELL, CELL, 3))
        pixels[area] = np.clip(kinds[cells[row, column]] + noise, 0, 255)
    return pixels.astype(np.uint8), cells, int(main)


def write_set(folder: Path, seed: int, *, helps: bool) -> None:
    random = np.random.default_rng(seed)
    kinds = random.integers(0, 256, (CLASSES, CELL, CELL, 3))  # a texture each
    with tl.LabelStoreWriter(folder / "labels", num_classes=CLASSES, class_names=NAMES) as writer:
        for number in range(TRAIN + VAL):
            part = "train" if number < TRAIN else "val"
            pixels, cells, main = scene(random, kinds)
            key = f"{NAMES[main]}/{number}.png"
            file = folder / "images" / part / key
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
            if part == "train":
                named = cells if helps else np.full_like(cells, random.integers(CLASSES))
                classes = torch.from_numpy(named)
                logits = torch.nn.functional.one_hot(classes.clamp(min=0), CLASSES) * 6.0
                logits = torch.where((classes >= 0)[..., None], logits, torch.zeros(()))
                label = tl.LabelMap.from_logits(logits.permute(2, 0, 1), CLASSES, tl.Box())
                writer.add(key, label)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("helps", [True, False], ids=["helps", "hurts"])
def test_the_sentence_is_right(tmp_path: Path, seed: int, helps: bool) -> None:
    write_set(tmp_path, seed, helps=helps)
    found = tl.compare(
        data=str(tmp_path / "images"), labels=str(tmp_path / "labels"), output=tmp_path / "out",
        model="lvvit_t", image_size=SIDE, batch_size=32, epochs=12, seeds=3,
        settings=(
            "model.kwargs={patch_size: 4, embed_dim: 48, depth: 2, num_heads: 3, stem_width: 16}",
            "model.drop_path=0.0", "augment.policy=null", "augment.erasing=0.0", "augment.crop_pct=1.0",
            "augment.scale=[0.5,1.0]", "optimizer.name=muon", "optimizer.lr=6e-3",
            "supervision.token_weight=2.0", "supervision.class_target=blend", "ema.decay=null",
            "engine.precision=fp32", "validate_every=12", "data.cache=ram", "trackers=[]",
            "schedule.warmup_epochs=1",
        ),
    )  # fmt: skip
    said = found.decision()
    print(helps, seed, said, [f"{line.arm}: {line.mean:.1f}" for line in found.lines()])
    assert said.startswith("Use" if helps else "Do not use"), said
