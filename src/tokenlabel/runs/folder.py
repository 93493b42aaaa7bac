"""The folder of a run: what was run, where, and everything that was measured.

recipe.yaml       every value of the recipe
environment.json  the images, classes and labels with their fingerprints; under `sessions` each start of
                  the run: code version, command, machine, library versions, changed values
metrics.jsonl     one line per logged update and per validation
curves.png/.html  the same, drawn
first-batch.jpg   the first samples of the training with their targets, drawn
answers.jpg       what the model of a complete run says of some images of the validation
checkpoints/      see `tokenlabel.runs.checkpoints`
results.json      the final numbers; there once the run is complete
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from tokenlabel.errors import InputError
from tokenlabel.files import contents, disk_errors, locked, write_atomically
from tokenlabel.runs.checkpoints import CheckpointFolder
from tokenlabel.runs.recipe import BaseRecipe
from tokenlabel.runs.recipe_file import differences, flat, read_recipe, to_yaml
from tokenlabel.runs.results import read_metrics
from tokenlabel.text import read_json
from tokenlabel.torchrun import rank_and_world

__all__ = ["RunFolder"]

# what does not change the result: how it is computed, and where the images lie (their fingerprints
# are compared instead)
_MAY_CHANGE = (
    "engine.", "checkpoints.", "about.", "trackers", "log_every", "name", "data.workers", "data.cache",
    "data.root", "data.train", "data.train_split", "data.val", "data.val_split", "data.labels",
)  # fmt: skip
# what a user may change by name, and what cannot be
_BY_NAME = ("optimizer.", "schedule.")
_FIXED = ("optimizer.name", "schedule.batch_size")
_SHOWN = 40  # characters of a value in a message
_LENGTH = ("schedule.epochs", "schedule.updates")

# what a run was started with: name -> where its facts keep the fingerprint
_IDENTITY = {
    "classes": ("classes",),
    "training images": ("images_fingerprint",),
    "images with soft labels": ("soft_fingerprint",),
    "validation images": ("held_out", "fingerprint"),
    "labels": ("labels", "index_sha256"),
    "annotator": ("annotator",),
}


class RunFolder:
    """A run's folder, new or to be continued. Only the first rank writes."""

    def __init__(
        self, path: str | Path, recipe: BaseRecipe, allow_changed: Iterable[str] = ()
    ) -> None:
        """`allow_changed` names values, such as "optimizer.lr", in which the recipe may differ from
        that of the run that is there. Raises InputError where it holds another run than the recipe's.
        """
        self.path = Path(path)
        self.recipe = recipe
        self.allowed = tuple(allow_changed)
        self.checkpoints = CheckpointFolder(self.path / "checkpoints", recipe.checkpoints.keep)
        self.changes: dict[str, tuple[Any, Any]] = {}  # value -> (before, now), of those allowed
        for key in self.allowed:
            if not key.startswith(_BY_NAME) or key in _FIXED:
                raise InputError(
                    f"{key!r} cannot change while a run goes on: only values of optimizer (not its"
                    " name) and of schedule (not the batch size) can"
                )
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file: give a folder for the run")
        if (self.path / "recipe.yaml").exists():
            self._compare()
        elif self.path.is_dir() and not self._only_labels():
            raise InputError(f"{self.path} is not empty and holds no run: choose another folder")

    def _compare(self) -> None:
        before = read_recipe(self.path / "recipe.yaml", type(self.recipe))
        known, now = flat(before), flat(self.recipe)
        differ = [key for key in differences(before, self.recipe) if not _listed(key, _MAY_CHANGE)]
        self.changes = {k: (known.get(k), now.get(k)) for k in differ if k in self.allowed}
        changed = [key for key in differ if key not in self.changes]
        if not changed:
            return
        values = ", ".join(
            f"{key} ({_short(known.get(key))} there, {_short(now.get(key))} now)"
            for key in changed[:4]
        )
        if set(changed) <= {*_LENGTH} and self.results is not None:
            longer = all(now[key] > known[key] for key in changed)
            further = f", or train it further with --allow-changed {changed[0]}" if longer else ""
            raise InputError(
                f"{self.path} holds a complete run with another {values}: for a new schedule choose"
                f" another output folder (--weights {self.path} starts from its weights){further}"
            )
        able = all(key.startswith(_BY_NAME) and key not in _FIXED for key in changed)
        hint = (
            f"allow that with --allow-changed {' --allow-changed '.join(changed)}, " if able else ""
        )
        raise InputError(
            f"{self.path} holds a run with another {values}:"
            f" {hint}choose another output folder, or delete this one"
        )

    def _only_labels(self) -> bool:
        """Labels made for a run may lie in its folder before it starts."""
        return contents(self.path) <= {"labels"}

    @property
    def results(self) -> dict[str, Any] | None:
        """The final numbers, if the run is complete."""
        file = self.path / "results.json"
        results: dict[str, Any] | None = read_json(file, kind=dict) if file.exists() else None
        return results

    @property
    def complete(self) -> bool:
        """Whether there is nothing to train."""
        return self.results is not None and not self.changes

    @contextmanager
    def opened(self, facts: Mapping[str, Any]) -> Iterator[None]:
        """Hold the folder alone, with what runs and where written down. Of the first rank.

        `facts` describe images, classes and labels; their fingerprints must be those that the run was
        begun with. Raises InputError where they are not, or where another process holds the folder.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path, "the run"):
            if (self.path / "recipe.yaml").exists():  # perhaps only now: look again
                self._compare()
            self.require_same(facts)
            known = self.known()
            environment = _environment()
            session = {
                **environment,
                "changed": {k: list(v) for k, v in self.changes.items()},
                "extends": self.results if self.changes else None,
            }
            sessions = [*known.get("sessions", [known] if known else []), session]
            first = {key: known[key] for key in environment if key in known}
            content = {**facts, **environment, **first, "sessions": sessions}
            write_atomically(self.path / "recipe.yaml", to_yaml(self.recipe))
            write_atomically(self.path / "environment.json", json.dumps(content, indent=2))
            if self.changes:
                (self.path / "results.json").unlink(missing_ok=True)
            yield

    def known(self) -> dict[str, Any]:
        """What the run wrote down when it was begun."""
        file = self.path / "environment.json"
        known: dict[str, Any] = read_json(file, kind=dict) if file.exists() else {}
        return known

    def require_same(self, facts: Mapping[str, Any]) -> None:
        """Raises InputError where the run was started with other images, classes or labels than `facts`
        say.
        """
        known = self.known()
        for what, keys in _IDENTITY.items():
            before, now = _at(known, keys), _at(facts, keys)
            # what an older version did not write down cannot be compared
            if None not in (before, now) and before != json.loads(json.dumps(now)):
                raise InputError(
                    f"{self.path} was started with other {what} (data that merely moved would be"
                    " accepted): choose another output folder, or bring back what it was started with"
                )

    def precision(self) -> str | None:
        """The arithmetic that the run was begun in; None for a new run."""
        if "precision" in self.known():
            return str(self.known()["precision"])
        file = self.path / "recipe.yaml"  # all that older versions wrote down of it
        begun = read_recipe(file, type(self.recipe)).engine.precision if file.exists() else "auto"
        return None if begun == "auto" else begun

    def log(self, entry: Mapping[str, Any]) -> None:
        metrics = self.path / "metrics.jsonl"
        with disk_errors(metrics), metrics.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def forget_after(self, update: int) -> None:
        """Drop what was logged after the checkpoint from which a run goes on: it comes again."""
        kept = [entry for entry in read_metrics(self.path) if entry["update"] <= update]
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        write_atomically(self.path / "metrics.jsonl", text)

    def finish(self, results: Mapping[str, Any]) -> None:
        write_atomically(self.path / "results.json", json.dumps(results, indent=2))


def _listed(key: str, names: Iterable[str]) -> bool:
    return any(key == name or (name.endswith(".") and key.startswith(name)) for name in names)


def _short(value: Any) -> str:
    """A recipe's value in a message."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def _at(facts: Mapping[str, Any], keys: Iterable[str]) -> Any:
    value: Any = facts
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _environment() -> dict[str, Any]:
    names = ("tokenlabel", "torch", "torchvision", "timm", "accelerate", "numpy")
    cuda = torch.cuda.is_available()
    return {
        "started": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "command": sys.argv,
        "code": _code_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if cuda
        else [],
        "world_size": rank_and_world()[1],
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
