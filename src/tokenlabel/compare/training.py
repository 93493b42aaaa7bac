"""`Training`: a run of a comparison as `tokenlabel train` makes it, and the record that it leaves."""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenlabel.compare.record import Record
from tokenlabel.runs.open import open_run
from tokenlabel.runs.recipe import BaseRecipe
from tokenlabel.runs.results import read_metrics
from tokenlabel.training.callbacks import Callback

__all__ = ["Training", "spelled"]


@dataclass(frozen=True)
class Training:
    """An arm's run with one seed: `choices` are those of `tl.train`, but for output and seed.

    Its score is the accuracy of its last checkpoint on the validation images, in percent, by the
    class token: the one rule of prediction that students of all arms have.
    """

    arm: str
    seed: int
    folder: Path
    choices: Mapping[str, Any]

    @property
    def command(self) -> str:
        """The same for the command line, where the recipe is one by name or file."""
        return spelled("train", {**self.choices, "output": self.folder, "seed": self.seed})

    def __call__(self) -> Record:
        """Train, or go on; what was trained already is only read."""
        from tokenlabel.api.train import train

        session, before = _Session(), _processor_seconds()
        done = train(
            **{**self.choices, "output": self.folder, "seed": self.seed, "callbacks": [session]}
        ).results
        used = _processor_seconds() - before
        entries = [entry for entry in read_metrics(self.folder) if "val/top1" in entry]
        made = done["updates"] - session.done
        return Record(
            arm=self.arm,
            seed=self.seed,
            score=100 * class_accuracy(done["measures"]),
            seconds=done["seconds"],
            details={
                "command": self.command,
                "measures": done["measures"],
                "curve": {str(entry["epoch"]): class_accuracy(entry) for entry in entries},
                "updates": done["updates"],
                "images": done["images"],
                # of a run that went on, as the updates of this session cost
                "processor_seconds": used * done["updates"] / made if made else None,
                "precision": open_run(self.folder).facts.get("precision"),
            },
        )


def class_accuracy(measures: Mapping[str, float]) -> float:
    """Top-1 of the class token in [0, 1]; its own entry is there where another rule is the headline."""
    return measures.get("val/class_top1", measures["val/top1"])


def spelled(verb: str, choices: Mapping[str, Any]) -> str:
    """A verb's keyword arguments as they are typed."""
    words = ["tokenlabel", verb]
    for name, value in choices.items():
        option = f"--{name.replace('_', '-')}"
        if value is None:
            continue
        if name == "settings":
            words += ["--set", *value]
        elif isinstance(value, bool):
            words.append(option if value else f"--no-{name.replace('_', '-')}")
        elif isinstance(value, Mapping):
            pairs = [word for key, item in value.items() for word in (key, _word(item))]
            words += [option, *pairs]
        else:
            words += [option, _word(value)]
    return " ".join(words)


def _word(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list) else str(value)


class _Session(Callback):
    """How far the run was when this session took it up."""

    done = 0

    def on_start(self, recipe: BaseRecipe, updates: int, done: int) -> None:  # noqa: ARG002
        self.done = done


def _processor_seconds() -> float:
    """Of this process, and of those of its children that have ended (loaders)."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
