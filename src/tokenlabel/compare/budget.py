"""How long runs take on this machine: measured before a comparison is sized."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenlabel.compare.plan import Job, make_records
from tokenlabel.compare.record import Record
from tokenlabel.errors import InputError
from tokenlabel.runs.results import read_metrics

__all__ = ["hours", "measured_rates"]

_UPDATES = 24
_UNITS = {"s": 1 / 3600, "m": 1 / 60, "h": 1.0, "d": 24.0}


def hours(text: str) -> float:
    """Hours of "90s", "30m", "1.5h" or "2d". Raises InputError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None or float(found[1]) == 0:
        raise InputError(f"{text!r} is no time: write 90s, 30m, 1.5h or 2d")
    return float(found[1]) * _UNITS[found[2]]


def measured_rates(
    choices: Mapping[str, Mapping[str, Any]], folder: Path, workers: int
) -> dict[str, float]:
    """Images a second in training of each of the named `choices` of `tl.train`, `workers` at a time.

    Each is trained for some updates in `folder`; the first half of them, with all that is done once, is
    not counted. Raises InputError where one cannot be trained.
    """
    shutil.rmtree(folder, ignore_errors=True)
    jobs = [
        Job(name, 0, folder / f"{number}.json", _Trial(name, folder / str(number), options))
        for number, (name, options) in enumerate(choices.items())
    ]
    rates = {record.arm: record.score for record in make_records(jobs, workers)}
    shutil.rmtree(folder, ignore_errors=True)
    return rates


@dataclass(frozen=True)
class _Trial:
    """A short training; the score of its record is its rate."""

    arm: str
    folder: Path
    choices: Mapping[str, Any]

    def __call__(self) -> Record:
        from tokenlabel.api.train import train

        settings = (
            *self.choices.get("settings", ()), "data.val=null", "data.val_split=null",
            "data.holdout=0", f"schedule.max_steps={_UPDATES}", f"log_every={_UPDATES // 2}",
        )  # fmt: skip
        train(**{**self.choices, "settings": settings, "output": self.folder})
        return Record(self.arm, 0, read_metrics(self.folder)[-1]["images_per_second"])
