"""What verbs say when they are done, and that the next command runs as it is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokenlabel.cli.main import main
from tokenlabel.cli.said import say_next

QUICK = ["--epochs", "1", "--batch-size", "4", "--image-size", "32", "--dtype", "float32"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in a folder whose name a shell must be told about."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("desk") / "my photos"
    for part, count in (("train", 4), ("val", 2)):
        for label, kind in enumerate(("ant", "bee")):
            (folder / part / kind).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 60, (32, 32, 3)) + 150 * label
                Image.fromarray(pixels.astype(np.uint8)).save(
                    folder / part / kind / f"{number}.png"
                )
    return folder


def ran(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    """What a command prints as its result, and the words of the command that comes next."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, error = capsys.readouterr()
    assert not ended.value.code, error
    found = re.findall(r"^next: tokenlabel (.*)$", out, re.M)
    return out, shlex.split(found[0]) if found else []


def test_from_photos_to_an_answer_by_the_commands_as_printed(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = photos.parent
    teach = ["teach", "--data", str(photos), "--output", str(desk / "the teacher")]
    out, annotate = ran(
        [*teach, "--model", "test_resnet", "--no-pretrained", *QUICK, "--holdout", "0.25"], capsys
    )
    assert "taught on 6 images" in out
    assert re.search(r"top-1 \d+\.\d% of 2 images not trained on", out)
    out, train = ran(annotate, capsys)
    assert "8 images labeled, 0 left out" in out
    small = ["--model", "test_vit", "--workers", "0", "--output", str(desk / "a run")]
    out, evaluate = ran([*train, *small, *QUICK], capsys)
    assert "trained on 8 images" in out
    assert re.search(r"best top-1 \d+\.\d\d% \(checkpoints/step-00000002\)", out)
    assert f"the run: {desk / 'a run'}" in out
    out, predict = ran(evaluate, capsys)
    assert "4 images evaluated" in out
    out, export = ran(predict, capsys)
    assert all(f"{kind}/1.png" in out for kind in ("ant", "bee"))
    assert export[:3] == ["export", "--checkpoint", str(desk / "a run")]
    export[-1] = str(desk / export[-1])  # a folder beside the photos, not here
    out, _ = ran(export, capsys)
    assert out.endswith(
        f"next, in Python: timm.create_model('local-dir:{export[-1]}', pretrained=True)\n"
    )
    health = ["labels", "info", "--labels", train[train.index("--labels") + 1]]
    assert "codec" in ran(health, capsys)[0]


def test_an_option_without_a_value_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    say_next("eval", ("--data", Path("my photos")), ("--split", None))
    assert capsys.readouterr().out == "next: tokenlabel eval --data 'my photos'\n"


def test_only_the_first_process_says_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    say_next("eval")
    assert capsys.readouterr().out == ""
