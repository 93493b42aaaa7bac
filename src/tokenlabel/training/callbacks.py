"""Callbacks: what follows a run on its first rank without changing it.

`fit(..., callbacks=[...])` takes any number besides the terminal's and the trackers'.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenlabel.errors import InputError, nearest
from tokenlabel.progress import console, progress_bar
from tokenlabel.runs.recipe import BaseRecipe
from tokenlabel.runs.recipe_file import flat

__all__ = ["Callback", "Epoch", "Terminal", "Trackers", "check_trackers"]

Epoch = Mapping[str, Any]
"""`epoch` and `epochs`, `update`, `lr`, the mean losses of the epoch (where a run goes on within one, of
what is left of it), the `measure` that decides which checkpoint is best, the validation's measures
(`val/…`, `ema/…`; none where nothing was validated), `best` or None, and `seconds_left`."""


class Callback:
    """Override what is of interest. Called on the first rank only; an error ends the run."""

    def on_start(self, recipe: BaseRecipe, updates: int, done: int) -> None:
        """The run begins, or goes on: `done` of all `updates` are made."""

    def on_update(self, update: int) -> None:
        """`update` updates are made."""

    def on_log(self, entry: Mapping[str, Any]) -> None:
        """A line was added to metrics.jsonl."""

    def on_epoch(self, epoch: Epoch) -> None:
        """An epoch ended, and was validated and saved if it was to be."""

    def on_end(self, results: Mapping[str, Any]) -> None:
        """The last epoch is over; `results` are written to results.json next."""

    def close(self) -> None:
        """The run is over, however it ended."""


class Terminal(Callback):
    """A progress bar, and one line an epoch, also where the output goes to a file. There the first
    log of the run is told, too, for its first epoch may take hours."""

    def __init__(self) -> None:
        self._bar = progress_bar(visible=console.is_terminal)
        self._images = 1
        self._updates = 0
        self._told = console.is_terminal  # how long it will take

    def on_start(self, recipe: BaseRecipe, updates: int, done: int) -> None:
        self._images, self._updates = recipe.schedule.batch_size, updates
        self._bar.start()
        self._task = self._bar.add_task(
            recipe.name,
            total=updates * self._images,
            completed=done * self._images,
            found=done * self._images,
            note="",
        )

    def on_update(self, update: int) -> None:
        self._bar.update(self._task, completed=update * self._images)

    def on_log(self, entry: Mapping[str, Any]) -> None:
        if "loss" in entry:
            note = f"{_losses(entry)} · wait {entry['data_wait']:.0%} · {entry['memory_gb']:.1f} GB"
            self._bar.update(self._task, note=note)
            if not self._told:
                rate = entry["images_per_second"]
                left = _duration((self._updates - entry["update"]) * self._images / rate)
                console.print(f"update {entry['update']:,} · {rate:,.0f} img/s · about {left} left")
                self._told = True

    def on_epoch(self, epoch: Epoch) -> None:
        self._told = True
        said = [
            f"epoch {epoch['epoch']}/{epoch['epochs']}",
            _losses(epoch),
            f"lr {epoch['lr']:.2g}",
        ]
        measure = epoch["measure"]
        for kind, word in (("val", measure), ("ema", "averaged")):
            if f"{kind}/{measure}" in epoch:
                said.append(f"{word} {epoch[f'{kind}/{measure}']:.2%}")
        if epoch["best"] is not None:
            said.append(f"best {epoch['best']:.2%}")
        said.append(f"{_duration(epoch['seconds_left'])} left")
        console.print(" · ".join(filter(None, said)), soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()


class Trackers(Callback):
    """accelerate's trackers: TensorBoard, wandb, trackio, mlflow ..., as far as installed."""

    def __init__(self, names: tuple[str, ...], folder: Path) -> None:
        self._names, self._folder = names, folder
        self._trackers: list[Any] = []

    def on_start(self, recipe: BaseRecipe, updates: int, done: int) -> None:  # noqa: ARG002
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState(
            cpu=recipe.engine.device == "cpu"
        )  # the trackers ask it which rank they are on
        values = {
            path: value if isinstance(value, (bool, int, float, str)) else str(value)
            for path, value in flat(recipe).items()
        }
        for name in self._names:
            kind = LOGGER_TYPE_TO_CLASS[name]
            place = [str(self._folder / "trackers")] if kind.requires_logging_directory else []
            tracker = kind(recipe.name, *place)
            tracker.start()
            tracker.store_init_configuration(values)
            self._trackers.append(tracker)

    def on_log(self, entry: Mapping[str, Any]) -> None:
        numbers = {k: v for k, v in entry.items() if k not in ("update", "epoch")}
        for tracker in self._trackers:
            tracker.log(numbers, step=entry["update"])

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.finish()


def check_trackers(wanted: tuple[str, ...]) -> None:
    """Raises InputError where a tracker is unknown or not installed."""
    if not wanted:
        return
    from accelerate.tracking import get_available_trackers

    installed = {str(tracker) for tracker in get_available_trackers()}
    for name in wanted:
        if name not in installed:
            raise InputError(
                f"no tracker {name!r}{nearest(name, installed)};"
                f" installed: {', '.join(sorted(installed))}"
            )


def _losses(entry: Mapping[str, Any]) -> str:
    names = ("loss", "class", "token", "decode", "auxiliary")
    return " ".join(f"{name} {entry[name]:.3f}" for name in names if name in entry)


def _duration(seconds: float) -> str:
    days, rest = divmod(round(seconds), 86400)
    clock = time.strftime("%H:%M:%S", time.gmtime(rest))
    return f"{days} d {clock}" if days else clock
