"""Taught classifiers: the same from the same seed, however they came about, and measured as saved."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from workbench import KillAt, Linger, processes, teach

import tokenlabel as tl
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.errors import InputError
from tokenlabel.models import build_model

SMALL = {
    "model": "resnet10t",
    "pretrained": False,
    "model_kwargs": {"stem_width": 8, "channels": (8, 8, 16, 16), "drop_rate": 0.2},
    "image_size": 32,
    "batch_size": 8,
    "epochs": 2,
    "holdout": 0.2,
    "device": "cpu",
    "dtype": "float32",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide pictures of noise in two tints, 20 each."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(40):
        pixels = random.integers(0, 120, (24, 48, 3))
        pixels[..., 2 * (number % 2)] += 100
        file = folder / ("red", "blue")[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return folder


def taught(images: Path, output: Path, **changes: Any) -> dict[str, torch.Tensor]:
    tl.teach(data=str(images), output=output, **{**SMALL, **changes})
    return load_file(output / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("taught") / "annotator"
    taught(images, output)
    return output


def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(
    images: Path, undisturbed: Path, tmp_path: Path
) -> None:
    weights = load_file(undisturbed / "model.safetensors")
    np.random.seed(5)  # noqa: NPY002  (nothing is drawn from global generators)
    torch.rand(3)
    for workers in (0, 1, 2):
        assert same(taught(images, tmp_path / str(workers), workers=workers), weights)
    assert not same(taught(images, tmp_path / "other", seed=1), weights)


def test_a_killed_one_goes_on_to_the_same_weights(
    images: Path, undisturbed: Path, tmp_path: Path
) -> None:
    options = {"data": str(images), "output": tmp_path / "annotator", **SMALL}
    process = processes().Process(target=teach, args=(KillAt(6),), kwargs=options)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "annotator/config.json").exists()
    assert same(
        taught(images, tmp_path / "annotator"), load_file(undisturbed / "model.safetensors")
    )


def test_it_is_measured_as_it_is_saved(images: Path, undisturbed: Path) -> None:
    model = build_model(str(undisturbed), pretrained=True)
    settings = Preprocessing.of_timm(model)
    assert (settings.fit, settings.crop_pct, settings.image_size) == ("squash", 1.0, (32, 32))
    results = json.loads((undisturbed / "run/results.json").read_text())
    assert results["images"] == 32
    held = tl.teach(data=str(images), output=undisturbed, **SMALL)  # complete: returns its result
    assert (held.images, held.held_out) == (32, 8)
    assert held.accuracy == results["measures"]["val/top1"]


def test_a_folder_holds_the_model_and_its_run_with_the_umask(undisturbed: Path) -> None:
    assert {p.name for p in undisturbed.iterdir()} == {"config.json", "model.safetensors", "run"}
    assert {"curves.png", "metrics.jsonl", "recipe.yaml", "first-batch.jpg", "answers.jpg"} <= {
        p.name for p in (undisturbed / "run").iterdir()
    }
    mask = os.umask(0)
    os.umask(mask)
    for file in undisturbed.rglob("*"):
        if file.is_file():
            assert file.stat().st_mode & 0o777 == 0o666 & ~mask, file


def test_a_second_process_is_told_who_holds_the_folder(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "annotator"
    started = tmp_path / "started"
    options = {"data": str(images), "output": output, **SMALL}
    first = processes().Process(target=teach, args=(Linger(started),), kwargs=options)
    first.start()
    while not started.exists():
        assert first.is_alive()
        time.sleep(0.05)
    try:
        with pytest.raises(InputError, match=f"process {first.pid}") as refused:
            taught(images, output)
        assert "\n" not in str(refused.value)
    finally:
        first.kill()
        first.join()
    assert taught(images, output)  # its holder died: taken over
