"""The doctor finds what is wrong, and nothing where all is well."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel.api import advice
from tokenlabel.cli import doctor as module
from tokenlabel.cli.doctor import doctor
from tokenlabel.data import check
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStoreWriter


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("ant", "bee"):
        (tmp_path / "data" / name).mkdir(parents=True)
        pixels = np.random.default_rng(len(name) + ord(name[0])).integers(0, 256, (8, 8, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / name / "1.png")
    return tmp_path / "data"


def labels(tmp_path: Path, keys: list[str], classes: int = 2) -> str:
    writer = LabelStoreWriter(tmp_path / "labels", num_classes=classes)
    for key in keys:
        writer.add(key, LabelMap.from_logits(torch.randn(classes, 2, 2), 2, Box()))
    writer.close()
    return str(tmp_path / "labels")


@pytest.fixture(autouse=True)
def _a_roomy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine is short of is not what these tests are about."""
    monkeypatch.setattr(module, "_SHARED_MEMORY", 0)
    monkeypatch.setattr(module, "_OPEN_FILES", 0)
    monkeypatch.setattr(module, "_GIB", 1)
    monkeypatch.setattr(check, "_FEWEST", 1)
    # small networks in the places of those that are timed
    monkeypatch.setattr(advice, "_ANNOTATOR", "test_resnet")
    monkeypatch.setattr(advice, "usual_recipe", lambda *_: ("cifar10_vit", None))
    monkeypatch.setattr(advice, "out_of_reach", lambda _: None)


def test_where_all_is_well_it_says_so(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = labels(tmp_path, ["ant/1.png", "bee/1.png"])
    assert doctor(data=str(images), labels=store) == 0
    printed = capsys.readouterr().out
    assert "no problem found" in printed
    assert f"torch        {torch.__version__.split('+')[0]}" in printed
    assert "data         2 images in 2 classes" in printed
    assert "labels       2 images labeled with 2 classes" in printed
    for line in (
        r"decoding     [\d,]+ images/s on all processors",
        r"annotator    test_resnet knows these classes: tokenlabel annotate --data \S+ --output labels"
        r" --model test_resnet",
        r"labels       0\.1 MB, about \d+ seconds to annotate",
        r"student      \w+, recipe cifar10_vit, batch 2",
        r"training     [\d,.]+ images/s on \w+: \d+ epochs in about \d+ \w+",
        r"checkpoints  [\d.]+ MB",
    ):
        assert re.search(f"^{line}$", printed, re.M), line


@pytest.mark.parametrize(
    ("keys", "classes", "message"),
    [
        (["ant/1.png"], 2, "1 of 2 images have no label, bee/1.png for one"),
        (["ant/1.png", "bee/1.png"], 5, "the images have 2 classes, the labels 5"),
    ],
)
def test_labels_that_do_not_fit_are_named(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    keys: list[str],
    classes: int,
    message: str,
) -> None:
    assert doctor(data=str(images), labels=labels(tmp_path, keys, classes)) == 1
    assert f"PROBLEM: {message}" in capsys.readouterr().out


def test_parts_are_compared(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = images.parent / "parts"
    for part in ("train", "val"):
        shutil.copytree(images, root / part)
    assert doctor(data=str(root)) == 1
    printed = capsys.readouterr().out
    assert "2 images are also in another part" in printed
    assert "data         2 images in 2 classes (part 'val')" in printed
    assert doctor(data=str(root), split="val") == 0


def test_classes_that_no_pretrained_classifier_knows_are_taught(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "ant").rename(images / "grommet")
    (images / "bee").rename(images / "ferrule")
    assert doctor(data=str(images)) == 0
    printed = capsys.readouterr().out
    assert (
        f"annotator    teach one these classes: tokenlabel teach --data {images} --output annotator"
        " --model test_resnet ("
    ) in printed


def test_without_a_network_the_advice_names_what_starts_without_one(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(advice, "out_of_reach", lambda _: "no connection")
    monkeypatch.setattr(advice, "usual_recipe", lambda *_: ("cifar10_vit", "from random weights"))
    assert doctor(data=str(images)) == 0
    printed = capsys.readouterr().out
    assert (
        "its pretrained weights are not available (no connection): add --checkpoint FILE" in printed
    )
    assert f"or teach one: tokenlabel teach --data {images} --output annotator" in printed
    assert "\n             from random weights\n" in printed


def test_images_without_classes_are_annotated_with_words(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor(data=str(images / "ant"))
    command = (
        f"tokenlabel annotate words --data {images / 'ant'} --output labels --model test_resnet"
    )
    assert command in capsys.readouterr().out


def test_an_image_that_cannot_be_read_is_named(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1, 7):  # all: `cannot read image ...` sends users here
        (images / "ant" / f"{number}.png").write_bytes(b"no image")
    assert doctor(data=str(images)) == 1
    names = ", ".join(f"ant/{number}.png" for number in range(1, 7))
    printed = capsys.readouterr().out
    assert f"6 of 7 images cannot be read: {names}; repair or remove them" in printed


def test_a_library_that_is_too_old_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["numpy>=99", "torch", "no-such"])
    assert doctor() == 1
    printed = capsys.readouterr().out
    assert "PROBLEM: tokenlabel needs numpy>=99" in printed
    assert "PROBLEM: tokenlabel needs no-such, found none" in printed


def test_little_shared_memory_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not module._linux():
        pytest.skip("asks Linux")
    monkeypatch.setattr(module, "_SHARED_MEMORY", 2**62)
    assert doctor() == 1
    assert "shared memory" in capsys.readouterr().out
