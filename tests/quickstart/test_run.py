"""The demo from scenes to report, small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokenlabel.errors import InputError
from tokenlabel.quickstart.report import ArmResult, summarize, verdict
from tokenlabel.quickstart.run import run
from tokenlabel.quickstart.settings import ARMS, Annotator, Settings

TINY = Settings(
    train_scenes=100,
    test_scenes=50,
    annotator=Annotator(epochs=1),
    epochs=3,
    model_kwargs={"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "stem_width": 8},
    workers=0,
)


def test_the_story_is_told_and_not_repeated(tmp_path: Path, capsys) -> None:
    results = run(tmp_path, 1, TINY)
    assert [r.arm for r in results] == [arm.name for arm in ARMS]
    assert all(len(r.curve) == TINY.epochs for r in results)
    assert set(results[-1].accuracy) == {"class", "token", "fused"}
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page  # self-contained
    record = json.loads((tmp_path / "results.json").read_text())
    assert [r["arm"] for r in record["runs"]] == [arm.name for arm in ARMS]
    assert "token labels" in capsys.readouterr().out
    weights = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    again = run(tmp_path, 1, TINY)  # goes on: nothing is left to do
    assert [r.accuracy for r in again] == [r.accuracy for r in results]
    assert weights == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("epochs: 1\n")
    with pytest.raises(InputError, match="made with other settings: remove it"):
        run(tmp_path, 1, TINY)


def result(arm: str, seed: int, accuracy: float) -> ArmResult:
    return ArmResult(arm, seed, {"class": accuracy}, "class", [accuracy], 1.0)


def test_the_summary_pairs_seeds_and_tells_losses_as_plainly_as_gains() -> None:
    runs = [result("labels only", s, a) for s, a in enumerate([0.5, 0.6])]
    runs += [result("ours", s, a) for s, a in enumerate([0.45, 0.53])]
    base, ours = summarize(runs, "labels only")
    assert (base.mean, ours.mean) == (pytest.approx(55), pytest.approx(49))
    assert ours.versus_labels == pytest.approx(-6)
    assert base.spread == pytest.approx(7.07, abs=0.01)
    assert "6.0 points behind the best other arm, labels only" in verdict([base, ours])
