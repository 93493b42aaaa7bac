"""The demo from scenes to report, small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import class_titles
from tokenlabel.labels import LabelStore
from tokenlabel.pictures.colors import visible_classes
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


def test_the_demo_runs_once(tmp_path: Path, capsys) -> None:
    results = run(tmp_path, 1, TINY).records
    assert [r.arm for r in results] == [arm.name for arm in ARMS]
    assert all(len(r.details["curve"]) == TINY.epochs for r in results)
    assert set(results[-1].details["accuracy"]) == {"class", "token", "fused"}
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # curves, scenes, photographs
    store = LabelStore(tmp_path / "photographs" / "labels")
    assert store.manifest.class_names is not None
    names = class_titles(store.manifest.class_names)
    assert names[visible_classes([store["china.jpg"]])[0]] == "bell cote"
    assert "http" not in page  # self-contained
    record = json.loads((tmp_path / "results.json").read_text())
    assert [r["arm"] for r in record["runs"]] == [arm.name for arm in ARMS]
    assert "token labels" in capsys.readouterr().out
    weights = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    again = run(tmp_path, 1, TINY)  # goes on: nothing is left to do
    assert again.records == results
    assert weights == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("epochs: 1\n")
    with pytest.raises(InputError, match="made with other settings: remove it"):
        run(tmp_path, 1, TINY)
