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
from tokenlabel.supervision import RULES, Rule
from tokenlabel.training.callbacks import Callback

__all__ = ["Training", "accuracies", "spelled"]


@dataclass(frozen=True)
class Training:
    """An arm's run with one seed: `choices` are those of `tl.train`, but for output and seed.

    Its score is the accuracy of its last checkpoint on the validation images, in percent: by the class
    token, the one rule of prediction that students of all arms have, or by its method's published rule:
    neither is chosen by these images.
    """

    arm: str
    seed: int
    folder: Path
    choices: Mapping[str, Any]
    own_rule: bool = False

    @property
    def command(self) -> str:
        """The same for the command line; nothing where the recipe has no name there."""
        if not isinstance(self.choices["recipe"], str):
            return ""
        return spelled("train", {**self.choices, "output": self.folder, "seed": self.seed})

    def __call__(self) -> Record:
        """Train, or go on; what was trained already is only read."""
        from tokenlabel.api.train import train

        session, before = _Session(), _processor_seconds()
        chosen = {**self.choices, "output": self.folder, "seed": self.seed}
        done = train(**chosen, callbacks=[session]).results
        used = _processor_seconds() - before
        made = done["updates"] - session.done
        found, own = accuracies(done["measures"])
        judged_by = own if self.own_rule else "class"
        facts = open_run(self.folder).facts
        entries = [entry for entry in read_metrics(self.folder) if "val/top1" in entry]
        return Record(
            arm=self.arm,
            seed=self.seed,
            score=100 * found[judged_by],
            seconds=done["seconds"],
            details={
                "command": self.command,
                "accuracy": found,
                "judged_by": judged_by,
                "curve": [[e["epoch"], accuracies(e)[0][judged_by]] for e in entries],
                "updates": done["updates"],
                "images": done["images"],
                "judged_on": facts["held_out"]["images"],
                # of a run that went on, as the updates of this session cost
                "processor_seconds": used * done["updates"] / made if made else None,
                "precision": facts.get("precision"),
            },
        )


def accuracies(measures: Mapping[str, float]) -> tuple[dict[Rule, float], Rule]:
    """Top-1 in [0, 1] by each rule that a validation measured, and the published one of the method."""
    found: dict[Rule, float] = {
        rule: measures[f"val/{rule}_top1"] for rule in RULES if f"val/{rule}_top1" in measures
    }
    published: Rule = "fused" if found else "class"
    found.setdefault(published, measures["val/top1"])  # where it is the only one, or an old run's
    return found, published


def spelled(verb: str, choices: Mapping[str, Any]) -> str:
    """A verb's keyword arguments as they are typed."""
    words = ["tokenlabel", verb]
    for name, value in choices.items():
        option = name.replace("_", "-")
        if value is None or value == ():
            continue
        if name == "settings":
            words += ["--set", *value]
        elif isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", _word(value)]
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
