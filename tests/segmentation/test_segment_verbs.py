"""The three verbs on the command line."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_segmenter import QUICK, main

from tokenlabel.api import segment
from tokenlabel.cli.main import VERBS


def test_the_commands_say_what_they_found_and_wrote(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes, run = trained
    words = ["segment", "train", "--data", str(scenes), "--output", str(tmp_path / "run")]
    words += ["--recipe", "camvid_cpu", "--updates", "3"]
    for text in QUICK:
        words += ["--set", text]
    main(words, 0)
    streams = capsys.readouterr()
    assert "best mIoU 0." in streams.out
    assert f"the run: {tmp_path / 'run'}" in streams.out
    hint = streams.out.rpartition("next: tokenlabel ")[2].strip()
    assert hint == f"segment eval --data {scenes} --checkpoint {tmp_path / 'run'}"
    assert "starts from RANDOM weights" in streams.err
    main(["segment", "eval", "--data", str(scenes), "--checkpoint", str(run)], 0)
    printed = capsys.readouterr().out
    summary = segment.evaluate(data=scenes, checkpoint=run)
    assert f"miou {summary.miou:.4f}" in printed
    assert f"{summary.folder}: results.json" in printed
    images = str(scenes / "images" / "validation")
    output = str(tmp_path / "out")
    main(
        ["segment", "predict", "--images", images, "--checkpoint", str(run), "--output", output], 0
    )
    assert (
        f"written to {output}: labels/, overlays/, legend.png (3 images)" in capsys.readouterr().out
    )


def test_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['transformers'] = None\n"
        "from tokenlabel.cli.main import main\n"
        f"main(['segment', 'train', '--data', {str(tmp_path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "tokenlabel: segmentation takes its heads from transformers: pip install 'tokenlabel[seg]'"
    ]


def test_the_verbs_are_listed() -> None:
    for verb in ("train", "eval", "predict"):
        module, _, name = VERBS[f"segment {verb}"][0].partition(":")
        assert getattr(importlib.import_module(module), name).__doc__
