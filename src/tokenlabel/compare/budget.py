"""How long runs take on this machine: measured before a comparison is sized."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenlabel.compare.plan import Job, make_records
from tokenlabel.compare.record import Record
from tokenlabel.errors import InputError
from tokenlabel.runs.open import open_run
from tokenlabel.runs.recipe import BaseRecipe
from tokenlabel.runs.results import read_metrics
from tokenlabel.training.callbacks import Callback

__all__ = [
    "Rate",
    "Size",
    "hours",
    "measured_rates",
    "measured_teaching",
    "sized",
    "teaching_epochs",
]

_UPDATES = 24  # of a trial
_UPDATES_TAUGHT = 8  # the same of an annotator, which is larger than a student
_PART_TAUGHT = 3  # of so many parts of a budget, teaching an annotator takes one at most
_UNITS = {"s": 1 / 3600, "m": 1 / 60, "min": 1 / 60, "h": 1.0, "d": 24.0}
_TIME = r"(\d+(?:\.\d+)?)(min|[smhd])"
_BESIDES = 1.2  # validation, and what token labels cost beside ground truth
_SEEDS = (2, 3, 5)  # at least, usually, at most
_ENOUGH = 10  # epochs; below, seeds are given up first
_SPARE = 1.2  # of the least budget that is named: the next measurement may be slower


@dataclass(frozen=True)
class Rate:
    """Of one run, while as many others run as will."""

    images_per_second: float
    images: int  # in an epoch
    start: float = 0.0  # seconds of a run that are not training: its process begins and ends

    def hours(self, epochs: float) -> float:
        return (self.start + epochs * self._epoch) / 3600

    def epochs(self, hours: float) -> float:
        """So many fit into the hours."""
        return max(0.0, 3600 * hours - self.start) / self._epoch

    @property
    def _epoch(self) -> float:
        """Seconds."""
        return self.images * _BESIDES / self.images_per_second


@dataclass(frozen=True)
class Size:
    """How much of a comparison is run, and why."""

    epochs: int
    seeds: int
    said: str


def hours(text: str) -> float:
    """Hours of "90s", "30m", "30min", "1h30m" or "2d". Raises InputError for anything else."""
    found = re.findall(_TIME, text) if re.fullmatch(f"({_TIME})+", text.strip()) else []
    given = sum(float(number) * _UNITS[unit] for number, unit in found)
    if given == 0:
        raise InputError(f"{text!r} is not a duration: write 90s, 30m, 1h30m or 2d")
    return given


def sized(
    rate: Rate,
    budget: str,
    arms: int,
    workers: int,
    epochs: int,
    seeds: int | None = None,
    used: float = 0.0,
) -> Size:
    """At most `epochs` epochs of each arm with 2 to 5 seeds (or `seeds`), as many as fit the budget.

    So many hours of it are `used` already. Raises InputError where it is too short for two epochs.
    """
    least, usual, most = (seeds, seeds, seeds) if seeds else _SEEDS
    given = max(0.0, hours(budget) - used) * workers
    chosen = usual
    while chosen > least and rate.epochs(given / (arms * chosen)) < min(_ENOUGH, epochs):
        chosen -= 1
    while chosen < most and rate.hours(epochs) * arms * (chosen + 1) <= given:
        chosen += 1
    length = min(epochs, int(rate.epochs(given / (arms * chosen))))
    at_rate = f"{rate.images_per_second:.0f} images/s a run, {workers} at a time"
    if used * 60 >= 1:
        at_rate += f", after {used * 60:.0f}m of preparations"
    shortest = min(2, epochs)
    if length < shortest:
        needed = _SPARE * (used + rate.hours(shortest) * arms * least / workers)
        raise InputError(
            f"a budget of {budget} is too short for {shortest} epochs of {arms} arms with {least} seeds"
            f" ({at_rate}): give {math.ceil(needed * 60)}m or more, fewer images, or a smaller model"
        )
    shrunk = "" if length == epochs else f" instead of {epochs}"
    said = f"{length} epochs{shrunk}, {chosen} seeds: what fits into {budget} at {at_rate}"
    return Size(length, chosen, said)


def teaching_epochs(rate: Rate, budget: str, epochs: int) -> int:
    """At most `epochs` epochs of teaching an annotator, as many as fit into a third of the budget.

    Raises InputError where it is too short for two.
    """
    chosen = min(epochs, int(rate.epochs(hours(budget) / _PART_TAUGHT)))
    shortest = min(2, epochs)
    if chosen < shortest:
        needed = _SPARE * _PART_TAUGHT * rate.hours(shortest)
        raise InputError(
            f"a third of a budget of {budget} is too short to teach an annotator for {shortest} epochs"
            f" ({rate.images_per_second:.3g} images/s): give {math.ceil(needed * 60)}m or more, or"
            " fewer images"
        )
    return chosen


def measured_teaching(choices: Mapping[str, Any], folder: Path) -> Rate:
    """The rate of `tl.teach` with `choices`, its epochs among them, found by some updates in `folder`.

    The first half of them, with all that is done once, is not counted. Raises InputError where the
    annotator cannot be taught.
    """
    from tokenlabel.api.teach import teach

    shutil.rmtree(folder, ignore_errors=True)
    watch = _Stopwatch(choices["epochs"])
    with suppress(_EnoughError):
        teach(**choices, output=folder, callbacks=[watch])
    shutil.rmtree(folder, ignore_errors=True)
    return watch.rate


class _EnoughError(Exception):
    """A trial has measured what it was for."""


class _Stopwatch(Callback):
    """Ends a run of so many epochs after some updates, with its `rate`."""

    rate: Rate

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_start(self, recipe: BaseRecipe, updates: int, done: int) -> None:  # noqa: ARG002
        self.batch = recipe.schedule.batch_size
        self.images = self.batch * updates // self.epochs

    def on_update(self, update: int) -> None:
        if update == _UPDATES_TAUGHT // 2:
            self.began = time.monotonic()
        elif update == _UPDATES_TAUGHT:
            seen = self.batch * (_UPDATES_TAUGHT - _UPDATES_TAUGHT // 2)
            self.rate = Rate(seen / (time.monotonic() - self.began), self.images)
            raise _EnoughError


def measured_rates(
    choices: Mapping[str, Mapping[str, Any]], folder: Path, workers: int
) -> dict[str, Rate]:
    """The rate of each of the named `choices` of `tl.train`, `workers` at a time.

    Each is trained for some updates in `folder`; the first half of them, with all that is done once, is
    not counted. Raises InputError where one cannot be trained.
    """
    shutil.rmtree(folder, ignore_errors=True)
    jobs = [
        Job(name, copy, folder / f"{number}-{copy}.json", _Trial(name, copy, folder, options))
        for number, (name, options) in enumerate(choices.items())
        for copy in range(workers)
    ]
    began = time.monotonic()
    records = make_records(jobs, workers)
    each = (time.monotonic() - began) / len(choices)  # `workers` copies of one at a time
    found: dict[str, Rate] = {}
    for record in records:
        start = max(0.0, each - record.details["passes"] / record.score)
        rate = Rate(record.score, record.details["images"], start)
        found[record.arm] = min(
            found.get(record.arm, rate), rate, key=lambda r: r.images_per_second
        )
    shutil.rmtree(folder, ignore_errors=True)
    return found


@dataclass(frozen=True)
class _Trial:
    """A short training; the score of its record is its rate."""

    arm: str
    copy: int
    folder: Path
    choices: Mapping[str, Any]

    def __call__(self) -> Record:
        from tokenlabel.api.train import train

        settings = (
            *self.choices.get("settings", ()), "data.val=null", "data.val_split=null",
            f"schedule.max_steps={_UPDATES}", f"log_every={_UPDATES // 2}",
        )  # fmt: skip
        output = self.folder / f"{self.arm}-{self.copy}"
        done = train(**{**self.choices, "settings": settings, "output": output})
        rate = read_metrics(output)[-1]["images_per_second"]
        passes = _UPDATES * open_run(output).recipe.schedule.batch_size
        images = done.results["images"]
        return Record(self.arm, self.copy, rate, details={"images": images, "passes": passes})
