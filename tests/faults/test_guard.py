"""Verbs write into no folder and over no file that is not theirs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from harness import CASES, call, contents

GUARDED = ("annotate", "train", "teach", "eval", "labels merge", "labels import", "labels export")


@pytest.mark.parametrize("name", GUARDED)
def test_folders_of_others_are_refused(name: str, quick_world: Path, tmp_path: Path) -> None:
    folder = tmp_path / str(CASES[name].output)
    (folder / "ant").mkdir(parents=True)
    (folder / "ant" / "photograph.jpg").write_bytes(b"mine")
    before = contents(folder)
    ended = call(CASES[name].line(quick_world, tmp_path))
    assert (ended.code, ended.fault()) == (2, None)
    assert str(folder) in ended.error
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_export_replaces_no_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"mine")
    ended = call(["export", "--model", "test_vit", "--output", str(tmp_path / name)])
    assert (ended.code, ended.fault()) == (2, None)
    assert "--overwrite" in ended.error
    assert (tmp_path / name).read_bytes() == b"mine"
