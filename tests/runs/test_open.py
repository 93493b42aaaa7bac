"""`open_run`: verified weights, first-version folders, and one line for all that is wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from tokenlabel.errors import InputError
from tokenlabel.runs.checkpoints import CheckpointFolder
from tokenlabel.runs.open import open_run, saved_weights

RECIPE = "name: small\nmodel: {name: lvvit_t, image_size: 32}\nsupervision: {kind: labels}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run as the first version wrote it: two checkpoints, the older one the best."""
    run = tmp_path / "run"
    checkpoints = CheckpointFolder(run / "checkpoints", keep=2)
    for step in (4, 8):
        state = {
            "model": {"w": torch.full((3,), float(step))},
            "ema": {"w": torch.full((3,), step + 0.5)},
            "optimizer": {},
            "progress": {"updates": step},
        }
        checkpoints.save(state, step, best=step == 4)
    (run / "recipe.yaml").write_text(RECIPE)
    (run / "environment.json").write_text(json.dumps({"classes": ["cat", "dog"]}))
    return run


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_run_is_its_recipe_names_and_best_weights(folder: Path) -> None:
    run = open_run(folder)
    assert run.recipe.name == "small"
    assert run.class_names == ("cat", "dog")
    assert run.results is None
    assert run.weights() == folder / "checkpoints/step-00000004/ema.safetensors"
    assert run.weights("model").name == "model.safetensors"
    assert run.damaged == ()
    assert saved_weights(folder) == run.weights()
    one = open_run(folder / "checkpoints/step-00000008")
    assert one.folder == folder.resolve()
    assert one.weights().parent.name == "step-00000008"


@pytest.mark.parametrize("damage", ["flip", "cut sums", "no sums", "lost weights"])
def test_a_damaged_best_checkpoint_gives_way_to_the_newest_whole_one(
    damage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = folder / "checkpoints/step-00000004"
    sums = best / "SHA256SUMS"
    if damage == "flip":
        flip(best / "ema.safetensors")
    elif damage == "cut sums":  # after a whole line
        sums.write_text(sums.read_text().splitlines(keepends=True)[0])
    elif damage == "no sums":
        sums.unlink()
    else:
        (best / "ema.safetensors").unlink()
    run = open_run(folder)
    assert run.weights().parent.name == "step-00000008"
    assert len(run.damaged) == 1
    assert run.damaged[0].startswith("step-00000004: ")
    assert "using step-00000008" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(InputError, match="step-00000004 is damaged"):
        open_run(best).weights()
    flip(folder / "checkpoints/step-00000008/model.safetensors")
    with pytest.raises(InputError, match="every checkpoint"):
        open_run(folder).weights()


@pytest.mark.parametrize("name", [b"../../elsewhere", b"\xff\xfe", b"", b"step-00000005", b"/"])
def test_a_damaged_name_of_the_best_checkpoint_is_said(
    name: bytes, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "checkpoints/best").write_bytes(name)
    run = open_run(folder)
    assert run.weights().parent.name == "step-00000008"
    assert "no such checkpoint" in run.damaged[0]
    assert "using step-00000008" in " ".join(capsys.readouterr().err.split())


def test_a_foreign_checkpoint_whose_sums_are_right_is_passed_over(folder: Path) -> None:
    """Its checksums are its writer's: torch and JSON still refuse what it holds."""
    for name, content in (("optimizer.pt", b"cos\nsystem\n."), ("progress.json", b"[" * 3000)):
        checkpoints = CheckpointFolder(folder / "checkpoints", keep=9)
        state, _ = checkpoints.newest()
        assert state is not None
        state["progress"]["updates"] += 1
        step = checkpoints.save(state, state["progress"]["updates"])
        (step / name).write_bytes(content)
        lines = [
            f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}"
            for file in step.iterdir()
            if file.name != "SHA256SUMS"
        ]
        (step / "SHA256SUMS").write_text("\n".join(lines))
        found, damaged = checkpoints.newest()
        assert found is not None
        assert found["progress"]["updates"] == 8
        assert damaged[0][0] == step
        checkpoints.remove(step)


def test_the_optimizer_state_is_not_needed_to_use_weights(folder: Path) -> None:
    flip(folder / "checkpoints/step-00000004/optimizer.pt")
    assert open_run(folder).weights().parent.name == "step-00000004"


def test_what_is_no_run_or_has_no_weights_is_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run: it holds no recipe"):
        open_run(tmp_path / "run/checkpoints")
    with pytest.raises(InputError, match=r"not a run: .*/run is: if `tokenlabel teach` .* again"):
        open_run(tmp_path)
    (folder / "environment.json").write_text("[1")
    with pytest.raises(InputError, match=r"environment\.json") as fault:
        _ = open_run(folder).class_names
    assert "\n" not in str(fault.value)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/recipe.yaml").write_text(RECIPE)
    with pytest.raises(InputError, match="no checkpoint yet"):
        open_run(tmp_path / "new").weights()
    assert saved_weights(tmp_path / "x.pth") == tmp_path / "x.pth"


def test_evaluations_are_found_wherever_they_lie(folder: Path) -> None:
    for place in ("evaluation", "evaluation/val-folder", "evaluation/a/b"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / "results.json").write_text(json.dumps({"place": place}))
    assert len(open_run(folder).evaluations()) == 3
