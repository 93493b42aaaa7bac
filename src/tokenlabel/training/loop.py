"""The loop: updates until the schedule ends, with what must happen between them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from tokenlabel.errors import InputError
from tokenlabel.files import write_atomically
from tokenlabel.pictures.curves import draw_curves
from tokenlabel.progress import console, progress_bar
from tokenlabel.runs.folder import RunFolder
from tokenlabel.runs.plan import Plan
from tokenlabel.runs.results import read_metrics
from tokenlabel.training.signals import Preempted, StopRequest
from tokenlabel.training.trainer import Trainer, Update

__all__ = ["Batches", "TrainingDiverged", "Validation", "fit"]


class Batches(Protocol):
    """This rank's share of the training images."""

    updates_per_epoch: int

    def epoch(self, epoch: int, start: int) -> Iterator[Sequence[Any]]:
        """The batches of each update of an epoch from update `start` on, one list an update."""


Validation = Callable[[nn.Module], dict[str, float]]
"""Named measures of a model; the plan's `measure` decides which checkpoint is best."""


class TrainingDiverged(InputError):
    """Too many updates in a row had a gradient that is not finite."""


def fit(
    trainer: Trainer,
    batches: Batches,
    folder: RunFolder,
    recipe: Plan,
    validation: Validation | None = None,
) -> dict[str, Any]:
    """Train to the end of the schedule, from the newest checkpoint of `folder` if it has one.

    Returns the results, which are also in `folder`. Raises Preempted when asked to stop (the state is
    saved), TrainingDiverged when the loss stays NaN (the last good state is saved).
    """
    return _Loop(trainer, batches, folder, recipe, validation).run()


class _Loop:
    def __init__(
        self,
        trainer: Trainer,
        batches: Batches,
        folder: RunFolder,
        recipe: Plan,
        validation: Validation | None,
    ) -> None:
        self.trainer, self.batches, self.folder, self.recipe = trainer, batches, folder, recipe
        self.ranks = trainer.ranks
        self.validation = validation
        self.per_epoch = batches.updates_per_epoch
        full = recipe.schedule.course(self.per_epoch).total
        self.total = min(full, recipe.schedule.max_steps or full)
        self.best = -1.0
        self.measures: dict[str, float] = {}
        self.seconds = 0.0  # of training, over all continuations
        self.saved_at = time.monotonic()
        self.window = _Window()

    def run(self) -> dict[str, Any]:
        self._resume()
        with (
            StopRequest() as stop,
            progress_bar(visible=self.ranks.first) as bar,
        ):
            images = self.recipe.schedule.batch_size
            task = bar.add_task(
                self.recipe.name,
                total=self.total * images,
                completed=self.trainer.updates * images,
                note="",
            )
            while self.trainer.updates < self.total:
                epoch, start = divmod(self.trainer.updates, self.per_epoch)
                for _ in self._epoch(epoch, start):
                    if note := self._log_update(epoch):
                        bar.update(task, note=note)
                    bar.advance(task, images)
                    if self.trainer.updates in (self.total, (epoch + 1) * self.per_epoch):
                        self._end_epoch(epoch)
                    if self.trainer.updates == self.total:
                        break
                    self._save_or_stop(stop)
        return self._finish()

    def _epoch(self, epoch: int, start: int) -> Iterator[Update]:
        batches = iter(self.batches.epoch(epoch, start))
        while True:
            begun = time.monotonic()
            group = next(batches, None)
            if group is None:
                return
            fetched = time.monotonic()
            update = self.trainer.update(group, epoch)
            self.window.add(update, waited=fetched - begun, took=time.monotonic() - begun)
            if self.trainer.skipped_in_a_row:
                self._watch_divergence(group)
            yield update

    # -- between updates -------------------------------------------------------------------------

    def _log_update(self, epoch: int) -> str:
        """Log when it is time; returns a note for the progress bar, or ""."""
        number = self.trainer.updates
        if number % self.recipe.log_every and number != self.total:
            return ""
        entry = self._entry(epoch)
        self._log(entry)
        return _note(entry)

    def _save_or_stop(self, stop: StopRequest) -> None:
        asked, due = self._agree(stop)
        if asked or due:
            self._save()
        if asked:
            if self.ranks.first:
                self._draw()
                console.print(
                    f"stopped at update {self.trainer.updates}: the same command goes on from there"
                )
            raise Preempted(128 + asked)

    def _agree(self, stop: StopRequest) -> tuple[int, bool]:
        """The highest stop signal of any rank, and whether the first rank finds it time to save."""
        minutes = (time.monotonic() - self.saved_at) / 60
        due = self.ranks.first and minutes >= self.recipe.checkpoints.every_minutes
        asked, save = self.ranks.max(torch.tensor([stop.signal, int(due)])).tolist()
        return asked, bool(save)

    def _end_epoch(self, epoch: int) -> None:
        """Validate and save at the end of an epoch, when it is one to be validated."""
        last = self.trainer.updates == self.total
        if not last and (epoch + 1) % self.recipe.validate_every:
            return
        best = False
        if self.validation is not None:
            self.measures = self._validate()
            self._log({"update": self.trainer.updates, "epoch": epoch + 1, **self.measures})
            measure = self.recipe.measure
            score = self.measures.get(f"ema/{measure}", self.measures[f"val/{measure}"])
            best = score > self.best
            self.best = max(score, self.best)
        self._save(best=best)

    def _validate(self) -> dict[str, float]:
        assert self.validation is not None
        measures = {f"val/{k}": v for k, v in self.validation(self.trainer.student).items()}
        if self.trainer.ema is not None:
            with self.trainer.ema_on_device() as average:
                measures |= {f"ema/{k}": v for k, v in self.validation(average).items()}
        return measures

    def _watch_divergence(self, group: Sequence[Any]) -> None:
        """Stop when too many updates in a row were skipped, leaving state and culprits behind."""
        if self.trainer.skipped_in_a_row < self.recipe.engine.max_bad_steps:
            return
        self._save()
        keys = [key for batch in group for key in batch.keys]
        file = self.folder.path / f"bad-batch-rank{self.ranks.rank}.json"
        write_atomically(file, json.dumps({"update": self.trainer.updates, "keys": keys}))
        raise TrainingDiverged(
            f"the gradient was not finite in {self.trainer.skipped_in_a_row} updates in a row; the last"
            f" good state is saved, and the keys of the last images are in {file}:"
            " lower optimizer.lr, set optimizer.clip, or train in another engine.precision"
        )

    # -- saving and resuming ---------------------------------------------------------------------

    def _save(self, *, best: bool = False) -> None:
        state = self.trainer.state()
        if self.ranks.first:
            state["progress"] |= {
                "best": self.best,
                "measures": self.measures,
                "seconds": self.seconds + self.window.total_seconds,
            }
            self.folder.checkpoints.save(state, self.trainer.updates, best=best)
        self.ranks.wait()
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        state, damaged = self.folder.checkpoints.newest()
        self.ranks.wait()  # all have read before any writes
        if state is not None:
            self.trainer.load(state)
            self.best = state["progress"]["best"]
            self.measures = state["progress"]["measures"]
            self.seconds = state["progress"]["seconds"]
        if self.ranks.first:
            for checkpoint, fault in damaged:
                console.print(
                    f"[yellow]{checkpoint} is damaged ({fault}): using the one before",
                    soft_wrap=True,
                )
                self.folder.checkpoints.remove(checkpoint)
            self.folder.forget_after(self.trainer.updates)
            if state is not None:
                console.print(
                    f"continuing {self.folder.path} at update {self.trainer.updates}",
                    soft_wrap=True,
                )

    # -- what is seen ----------------------------------------------------------------------------

    def _entry(self, epoch: int) -> dict[str, Any]:
        """One line of the metrics file, over the updates since the last one."""
        losses, figures = self.window.close()
        names = sorted(losses)
        means = self.ranks.sum(torch.tensor([losses[name] for name in names])) / self.ranks.count
        images = self.recipe.schedule.batch_size
        return {
            "update": self.trainer.updates,
            "epoch": epoch + 1,
            **dict(zip(names, means.tolist(), strict=True)),
            "lr": self.trainer.lr,
            "gradient_norm": figures["gradient_norm"],
            "images_per_second": images * figures["updates"] / figures["seconds"],
            "data_wait": figures["waited"] / figures["seconds"],
            "memory_gb": self.ranks.memory_gb(),
            "skipped": self.trainer.skipped,
        }

    def _log(self, entry: dict[str, Any]) -> None:
        if self.ranks.first:
            self.folder.log(entry)
        numbers = {k: v for k, v in entry.items() if k not in ("update", "epoch")}
        self.ranks.accelerator.log(numbers, step=entry["update"])

    def _draw(self) -> None:
        draw_curves(read_metrics(self.folder.path), self.folder.path, self.recipe.name)

    def _finish(self) -> dict[str, Any]:
        best = self.folder.checkpoints.best()
        results = {
            "name": self.recipe.name,
            **self.recipe.facts,
            "seed": self.recipe.seed,
            "updates": self.trainer.updates,
            "skipped": self.trainer.skipped,
            "seconds": self.seconds + self.window.total_seconds,
            f"best_{self.recipe.measure}": self.best if self.validation is not None else None,
            "measures": self.measures,
            "checkpoint": f"checkpoints/step-{self.trainer.updates:08d}",
            "best_checkpoint": None if best is None else f"checkpoints/{best.name}",
        }
        if self.ranks.first:
            self._draw()
            self.folder.finish(results)
        self.ranks.wait()
        return results


class _Window:
    """Sums since the last log line; losses stay on the device until they are asked for."""

    def __init__(self) -> None:
        self.total_seconds = 0.0
        self._reset()

    def _reset(self) -> None:
        self.losses: dict[str, torch.Tensor] = {}
        self.counted = self.updates = 0
        self.waited = self.seconds = self.norm = 0.0

    def add(self, update: Update, *, waited: float, took: float) -> None:
        self.updates += 1
        self.waited += waited
        self.seconds += took
        self.total_seconds += took
        if update.skipped:
            return
        self.counted += 1
        self.norm += update.gradient_norm
        for name, loss in update.losses.items():
            self.losses[name] = self.losses[name] + loss if name in self.losses else loss

    def close(self) -> tuple[dict[str, float], dict[str, float]]:
        """Mean losses, and figures of the window; begins a new one."""
        counted = max(self.counted, 1)
        losses = {name: float(loss) / counted for name, loss in self.losses.items()}
        figures = {
            "updates": self.updates,
            "seconds": self.seconds,
            "waited": self.waited,
            "gradient_norm": self.norm / counted,
        }
        self._reset()
        return losses, figures


def _note(entry: dict[str, Any]) -> str:
    names = ("loss", "class", "token", "decode", "auxiliary")
    terms = [f"{name} {entry[name]:.3f}" for name in names if name in entry]
    return f"{' '.join(terms)} · wait {entry['data_wait']:.0%} · {entry['memory_gb']:.1f} GB"
