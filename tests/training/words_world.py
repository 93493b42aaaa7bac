"""Images in class folders and without classes, their label stores, and a short training on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from workbench import KillAt

from tokenlabel.api.train import train
from tokenlabel.data.open import open_source
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStoreWriter
from tokenlabel.labels.vocabulary import Vocabulary

CLASSES, WORDS = ("cat", "cow", "dog"), 11
SMALL = (
    "model.kwargs={patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}", "engine.device=cpu",
    "optimizer.lr=2e-3", "schedule.warmup_epochs=1", "trackers=[]", "log_every=1",
    "engine.precision=fp32",
)  # fmt: skip
SHORT = {
    "model": "deit_tiny_patch16_224", "image_size": 32, "epochs": 2, "batch_size": 12, "workers": 0,
}  # fmt: skip


def make_world(folder: Path) -> None:
    """images/{train,val}/CLASS, flat/ (the training images without classes), and their stores."""
    random = np.random.default_rng(0)
    (folder / "flat").mkdir()
    for part, count in (("train", 12), ("val", 4)):
        for number, label in enumerate(CLASSES):
            (folder / "images" / part / label).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(120, size=(40, 52, 3), dtype=np.uint8)
                pixels[..., number % 3] += 100
                Image.fromarray(pixels).save(folder / "images" / part / label / f"{i}.png")
                if part == "train":
                    Image.fromarray(pixels).save(folder / "flat" / f"{label}{i}.png")
    vocabulary = Vocabulary(torch.eye(WORDS), torch.zeros(WORDS), 0.1)
    for name, images, split, words in (
        ("classes", "images", "train", None),
        ("words", "images", "train", vocabulary),
        ("flat-words", "flat", None, vocabulary),
    ):
        source, count = open_source(str(folder / images), split), WORDS if words else 3
        draws = torch.Generator().manual_seed(len(name))
        with LabelStoreWriter(folder / name, num_classes=count, vocabulary=words) as writer:
            for key in source.keys:
                logits = 3 * torch.randn(count, 5, 5, generator=draws)
                writer.add(key, LabelMap.from_logits(logits, 3, Box()))


def run(world: Path, output: Path, /, *settings: str, **changes: Any) -> dict[str, Any]:
    arguments = {
        "data": str(world / "images"), "output": output, "labels": str(world / "words"),
        **SHORT, "settings": (*SMALL, *settings), **changes,
    }  # fmt: skip
    return dict(train(**arguments).results)


def train_both(world: Path, output: Path, killed_at: int | None = None) -> None:
    """A student with a head for each of two stores, from checkpoint to checkpoint; perhaps killed."""
    torch.set_num_threads(1)
    settings = (
        "checkpoints.every_minutes=0",
        "mixing.kind=none",
        "model.drop_path=0",
        "optimizer.name=sgd",
    )
    callbacks = () if killed_at is None else (KillAt(killed_at),)
    stores = [str(world / name) for name in ("classes", "words")]
    run(world, output, *settings, labels=stores, callbacks=callbacks)
