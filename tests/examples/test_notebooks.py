"""The notebooks run, cell by cell, with values that need no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

VALUES: dict[str, dict[str, Any]] = {
    "own_images": {
        "annotator": "test_resnet", "student": "test_vit", "pretrained": False, "size": 64,
        "epochs": 1, "batch_size": 4,
    },
    "label_maps": {"classifier": "test_resnet", "pretrained": False, "side": 160},
}  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    for i in range(20):
        path = tmp_path / "photos" / ("val" if i >= 16 else "train") / f"class{i % 2}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (70, 80, 3)).astype(np.uint8)).save(path)
    Image.open(path).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    return tmp_path


def cells(name: str) -> list[dict[str, Any]]:
    notebook = json.loads((EXAMPLES / f"{name}.ipynb").read_text())
    assert notebook["nbformat"] == 4
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_is_run_and_kept_without_outputs() -> None:
    assert set(VALUES) == {file.stem for file in EXAMPLES.glob("*.ipynb")}
    for name in VALUES:
        assert all(not cell["outputs"] for cell in cells(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", VALUES)
@pytest.mark.usefixtures("desk")
def test_the_cells_run(name: str) -> None:
    first, *others = cells(name)
    assert first["metadata"]["tags"] == ["parameters"]
    names: dict[str, Any] = {}
    exec("".join(first["source"]), names)
    assert set(VALUES[name]) <= set(names)
    names |= VALUES[name]
    for number, cell in enumerate(others):
        exec(compile("".join(cell["source"]), f"{name}[{number}]", "exec"), names)
