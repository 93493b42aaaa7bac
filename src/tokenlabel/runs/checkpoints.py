"""Checkpoints that survive anything: written aside and renamed, checked by digest, newest good first.

A checkpoint is a folder `step-00001234/` with `model.safetensors`, `ema.safetensors` (both ordinary
weights that anyone may load), `optimizer.pt` and `progress.json`; `SHA256SUMS` vouches for them all.
It does not know how many ranks wrote it. Only the first rank writes; all read, so that the folder must
be on a disk they share.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tokenlabel.errors import InputError
from tokenlabel.files import (
    inside,
    replacing_folder,
    sha256_of,
    short_of_space,
    write_atomically,
    write_tensors,
    write_torch,
)
from tokenlabel.text import read_json, read_text

__all__ = ["PROGRESS", "CheckpointFolder", "State", "fault_of", "is_checkpoint"]

State = dict[str, Any]
"""`model` and, if any, `ema`: weights by name; `optimizer`: a state dict; `progress`: plain values."""

_SUMS = "SHA256SUMS"
PROGRESS = "progress.json"


class CheckpointFolder:
    """The last `keep` checkpoints of a run and its best one."""

    def __init__(self, path: Path, keep: int) -> None:
        self.path = path
        self.keep = keep

    # -- writing ---------------------------------------------------------------------------------

    def require_space(self, size: int) -> None:
        """Raises InputError where the disk will not hold all that a run keeps, `size` bytes each."""
        there = sum(file.stat().st_size for file in self.path.glob("step-*/*"))
        # the newest, the best, and one more while it is being written
        if said := short_of_space(self.path, (self.keep + 2) * size - there):
            raise InputError(
                f"{said}: free some space, choose another folder, or keep fewer by --set"
                " checkpoints.keep=1"
            )

    def save(self, state: State, step: int, *, best: bool = False) -> Path:
        """Write the checkpoint of update `step`; a crash at any point leaves the older ones whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        final = self.path / f"step-{step:08d}"
        if best:  # before it exists: should the run die in between, it comes to the same step again
            write_atomically(self.path / "best", final.name)
        if not final.exists():
            with replacing_folder(final) as aside:
                _write(aside, state)
        best_one = self.best()
        for old in self.steps()[: -self.keep]:
            if old != best_one:
                self.remove(old)
        return final

    def remove(self, checkpoint: Path) -> None:
        # renamed first: a half-deleted folder must not look like a checkpoint
        doomed = self.path / f".deleting-{checkpoint.name}"
        shutil.rmtree(doomed, ignore_errors=True)
        checkpoint.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    # -- reading ---------------------------------------------------------------------------------

    def steps(self) -> list[Path]:
        """The checkpoints that are there, oldest first."""
        return sorted(self.path.glob("step-*"))

    def best(self) -> Path | None:
        """The checkpoint with the best validation so far; it may be damaged, or gone."""
        pointer = self.path / "best"
        if not pointer.exists():
            return None
        try:
            return inside(self.path, read_text(pointer).strip())
        except InputError:  # no name of a checkpoint: the pointer itself is damaged
            return pointer

    def newest(self) -> tuple[State | None, list[tuple[Path, str]]]:
        """The newest checkpoint that is whole, and what is wrong with each newer one."""
        damaged: list[tuple[Path, str]] = []
        for folder in reversed(self.steps()):
            fault = fault_of(folder)
            if fault is None:
                try:
                    return _read(folder), damaged
                except Exception as error:  # sums only tell damage: it may be a foreign file
                    fault = " ".join(str(error).split()) or type(error).__name__
            damaged.append((folder, fault))
        return None, damaged


def _write(folder: Path, state: State) -> None:
    for name in ("model", "ema"):
        if name in state:
            write_tensors(folder / f"{name}.safetensors", state[name])
    write_torch(folder / "optimizer.pt", state["optimizer"])
    (folder / PROGRESS).write_text(json.dumps(state["progress"]))
    files = sorted(folder.iterdir())
    sums = "".join(f"{sha256_of(file)}  {file.name}\n" for file in files)
    (folder / _SUMS).write_text(sums)


def _read(folder: Path) -> State:
    weights = {
        name: load_file(folder / f"{name}.safetensors")
        for name in ("model", "ema")
        if (folder / f"{name}.safetensors").exists()
    }
    return {
        **weights,
        "optimizer": torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True),
        "progress": read_json(folder / PROGRESS, kind=dict),
    }


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is one of a run's checkpoints."""
    return (folder / PROGRESS).is_file()


def fault_of(folder: Path, *, weights_only: bool = False) -> str | None:
    """What is wrong with a checkpoint, or None; `weights_only` leaves the optimizer's state unread."""
    if not folder.is_dir():
        return "there is no such checkpoint"
    try:
        lines = read_text(folder / _SUMS).splitlines()
        digests = {name: digest for digest, name in (line.split("  ") for line in lines)}
        present = {file.name for file in folder.iterdir()} - {_SUMS}
        if odd := sorted(present ^ digests.keys()):
            return f"{odd[0]} is missing or has no checksum"
        for name, digest in digests.items():
            if weights_only and not name.endswith(".safetensors"):
                continue
            if sha256_of(folder / name) != digest:
                return f"{name} has changed"
        return None if "model.safetensors" in digests else f"{_SUMS} is empty"
    except (OSError, ValueError) as error:
        return str(error)
