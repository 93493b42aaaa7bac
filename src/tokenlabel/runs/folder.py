"""The folder of a run: what was run, where, and everything that was measured.

recipe.yaml       every value of the recipe
environment.json  code version, command, machine, library versions, the labels' fingerprint
metrics.jsonl     one line per logged update and per validation
curves.png/.html  the same, drawn
checkpoints/      see `tokenlabel.runs.checkpoints`
results.json      the final numbers; there once the run is complete
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from tokenlabel.errors import InputError
from tokenlabel.files import write_atomically
from tokenlabel.runs.checkpoints import CheckpointFolder
from tokenlabel.runs.plan import Plan
from tokenlabel.runs.recipe_file import differences, read_recipe, to_yaml
from tokenlabel.runs.results import read_metrics

__all__ = ["RunFolder"]

_MAY_CHANGE = ("data.workers", "engine.", "checkpoints.", "trackers", "log_every", "about.", "name")


class RunFolder:
    """Opens a run's folder, new or to be continued. Only the first rank writes."""

    def __init__(self, path: str | Path, recipe: Plan) -> None:
        """Raises InputError where the folder holds another run than the recipe's."""
        self.path = Path(path)
        self.checkpoints = CheckpointFolder(self.path / "checkpoints", recipe.checkpoints.keep)
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file: give a folder for the run")
        known = self.path / "recipe.yaml"
        if known.exists():
            changed = [
                key
                for key in differences(read_recipe(known, type(recipe)), recipe)
                if not key.startswith(_MAY_CHANGE)
            ]
            if changed:
                raise InputError(
                    f"{self.path} holds a run with another {', '.join(changed[:4])}:"
                    " choose another output folder, or delete this one"
                )
        elif self.path.is_dir() and any(self.path.iterdir()) and not self._only_labels():
            raise InputError(f"{self.path} is not empty and holds no run: choose another folder")

    def _only_labels(self) -> bool:
        """Labels made for a run may lie in its folder before it starts."""
        return {p.name for p in self.path.iterdir()} <= {"labels"}

    @property
    def results(self) -> dict[str, Any] | None:
        """The final numbers, if the run is complete."""
        file = self.path / "results.json"
        results: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
        return results

    def open(self, recipe: Plan, facts: Mapping[str, Any]) -> None:
        """Write down what runs and where. `facts` go into environment.json."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "recipe.yaml", to_yaml(recipe))
        write_atomically(
            self.path / "environment.json", json.dumps({**_environment(), **facts}, indent=2)
        )

    def log(self, entry: Mapping[str, Any]) -> None:
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def forget_after(self, update: int) -> None:
        """Drop what was logged after the checkpoint from which a run goes on: it comes again."""
        kept = [entry for entry in read_metrics(self.path) if entry["update"] <= update]
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        write_atomically(self.path / "metrics.jsonl", text)

    def finish(self, results: Mapping[str, Any]) -> None:
        write_atomically(self.path / "results.json", json.dumps(results, indent=2))


def _environment() -> dict[str, Any]:
    names = ("tokenlabel", "torch", "torchvision", "timm", "accelerate", "numpy")
    cuda = torch.cuda.is_available()
    return {
        "command": sys.argv,
        "code": _code_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if cuda
        else [],
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
        "libraries": {name: _version(name) for name in names},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed as a package"


def _code_version() -> str:
    """The git commit of this code, marked where files differ from it; the version outside git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return _version("tokenlabel")
    return described.stdout.strip()
