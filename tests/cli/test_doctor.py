"""The doctor finds what is wrong, and nothing where all is well."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel.cli import doctor as module
from tokenlabel.cli.doctor import doctor
from tokenlabel.data import check
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStoreWriter


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("ant", "bee"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(
            tmp_path / "data" / name / "1.png"
        )
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


def test_where_all_is_well_it_says_so(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = labels(tmp_path, ["ant/1.png", "bee/1.png"])
    assert doctor(data=str(images), labels=store) == 0
    printed = capsys.readouterr().out
    assert "no problem found" in printed
    assert f"torch        {torch.__version__.split('+')[0]}" in printed
    assert "data         2 images in 2 classes" in printed


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


def test_an_image_that_cannot_be_read_is_named(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "ant" / "1.png").write_bytes(b"no image")
    assert doctor(data=str(images)) == 1
    assert "1 of 2 images looked into cannot be read, ant/1.png for one" in capsys.readouterr().out


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
