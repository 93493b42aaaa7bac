"""The loop: updates until the schedule ends, with what must happen between them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch
from torch import nn

from tokenlabel.errors import InputError
from tokenlabel.pictures.curves import draw_curves
from tokenlabel.progress import console
from tokenlabel.runs.folder import RunFolder
from tokenlabel.runs.recipe import BaseRecipe
from tokenlabel.runs.results import read_metrics
from tokenlabel.training.callbacks import Callback
from tokenlabel.training.diagnosis import NO_CAUSE, culprits, keep_batch
from tokenlabel.training.selection import Selection
from tokenlabel.training.signals import Preempted, StopRequest, killed_named
from tokenlabel.training.trainer import Trainer, Update
from tokenlabel.training.window import Window

__all__ = ["Batches", "Loop", "TrainingDiverged", "Validation"]


class Batches(Protocol):
    """This rank's share of the training images."""

    updates_per_epoch: int

    def epoch(self, epoch: int, start: int) -> Iterator[Sequence[Any]]:
        """The batches of each update of an epoch from update `start` on, one list an update."""


Validation = Callable[[nn.Module], dict[str, float]]
"""Named measures of a model; the recipe's `measure` decides which checkpoint is best."""


class TrainingDiverged(InputError):
    """Too many updates in a row had a gradient that is not finite."""


class Loop:
    """One run of a trainer, from the newest checkpoint of `folder` if it has one."""

    def __init__(
        self,
        trainer: Trainer,
        batches: Batches,
        folder: RunFolder,
        recipe: BaseRecipe,
        validation: Validation | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.trainer, self.batches, self.folder, self.recipe = trainer, batches, folder, recipe
        self.ranks = trainer.ranks
        self.validation = validation
        self.callbacks = callbacks
        self.per_epoch = batches.updates_per_epoch
        full = recipe.schedule.course(self.per_epoch).total
        self.planned = min(full, recipe.schedule.max_steps or full)
        self.total = self.planned
        self.selection = Selection(recipe)
        self.seconds = 0.0  # of training, over all continuations
        self.saved_at = time.monotonic()
        self.window = Window()  # since the last line of the metrics file
        self.of_epoch = Window()  # since the epoch began, or the run went on in it
        self.workers: list[BaseProcess] = []  # that load images

    def run(self, used: Mapping[str, Any]) -> dict[str, Any]:
        """Train to the end; returns the results, with what is said of the images `used`."""
        self._resume()
        with ExitStack() as ends, killed_named(self.workers, self.ranks), StopRequest() as stop:
            for callback in self.callbacks:
                ends.callback(callback.close)
            for callback in self.callbacks:
                callback.on_start(self.recipe, self.total, self.trainer.updates)
            while self.trainer.updates < self.total:
                epoch, start = divmod(self.trainer.updates, self.per_epoch)
                for _ in self._epoch(epoch, start):
                    self._end_update(epoch)
                    if self.trainer.updates == self.total:
                        break
                    self._save_or_stop(stop)
            return self._finish(used)

    def _epoch(self, epoch: int, start: int) -> Iterator[Update]:
        batches = iter(self.batches.epoch(epoch, start))
        while True:
            begun = time.monotonic()
            group = next(batches, None)
            if group is None:
                return
            fetched = time.monotonic()
            if not self.window.total_seconds or not self.trainer.updates % self.per_epoch:
                self.workers[:] = multiprocessing.active_children()
            update = self.trainer.update(group, epoch)
            for window in (self.window, self.of_epoch):
                window.add(update, waited=fetched - begun, took=time.monotonic() - begun)
            if self.trainer.skipped_in_a_row:
                self._watch_divergence(group, epoch)
            yield update

    # -- between updates -------------------------------------------------------------------------

    def _end_update(self, epoch: int) -> None:
        self._log_update(epoch)
        for callback in self.callbacks:
            callback.on_update(self.trainer.updates)
        if self.trainer.updates in (self.total, (epoch + 1) * self.per_epoch):
            self._end_epoch(epoch)

    def _log_update(self, epoch: int) -> None:
        """Log when it is time."""
        number = self.trainer.updates
        if number % self.recipe.log_every and number != self.total:
            return
        self._log(self._entry(epoch))

    def _save_or_stop(self, stop: StopRequest) -> None:
        asked, due = self._agree(stop)
        if asked or due:
            self._save()
        if asked:
            if self.ranks.first:
                self._draw()
                console.print(
                    f"stopped at update {self.trainer.updates} of {self.total}; the state is saved in"
                    f" {self.folder.path}: run the same command again to go on from there",
                    soft_wrap=True,
                    markup=False,
                )
            raise Preempted(128 + asked)

    def _agree(self, stop: StopRequest) -> tuple[int, bool]:
        """The highest stop signal of any rank, and whether the first rank finds it time to save."""
        minutes = (time.monotonic() - self.saved_at) / 60
        due = self.ranks.first and minutes >= self.recipe.checkpoints.every_minutes
        asked, save = self.ranks.max(torch.tensor([stop.signal, int(due)])).tolist()
        return asked, bool(save)

    def _end_epoch(self, epoch: int) -> None:
        """Validate and save, when the epoch is one to be validated."""
        last = self.trainer.updates == self.total
        measures: dict[str, float] = {}
        if last or not (epoch + 1) % self.recipe.validate_every:
            best = False
            if self.validation is not None:
                measures = self._validate()
                self._log({"update": self.trainer.updates, "epoch": epoch + 1, **measures})
                best = self.selection.judge(measures)
            if self.selection.hopeless and self.window.updates:  # the last line of the run
                self._log(self._entry(epoch))
            self._save(best=best)
        losses = self._means(self.of_epoch.close()[0])
        seconds = self.seconds + self.window.total_seconds
        left = (self.total - self.trainer.updates) * seconds / self.trainer.updates
        for callback in self.callbacks:
            callback.on_epoch(
                {
                    **losses,
                    **measures,
                    "update": self.trainer.updates,
                    "epoch": epoch + 1,
                    "epochs": -(-self.total // self.per_epoch),
                    "lr": self.trainer.lr,
                    "measure": self.recipe.measure,
                    "best": self.selection.best,
                    "seconds_left": left,
                }
            )
        self._lose_patience()

    def _lose_patience(self) -> None:
        """End here where validation has not improved for as long as the recipe waits."""
        if not self.selection.hopeless or self.trainer.updates == self.total:
            return
        if self.ranks.first:
            stale = self.selection.stale
            console.print(f"stopped early: no better {self.recipe.measure} in {stale} validations")
        self.total = self.trainer.updates

    def _validate(self) -> dict[str, float]:
        assert self.validation is not None
        measures = {f"val/{k}": v for k, v in self.validation(self.trainer.student).items()}
        if self.trainer.ema is not None:
            with self.trainer.ema_on_device() as average:
                measures |= {f"ema/{k}": v for k, v in self.validation(average).items()}
        return measures

    def _watch_divergence(self, group: Sequence[Any], epoch: int) -> None:
        """Stop when too many updates in a row were skipped, leaving state and culprits behind."""
        if self.trainer.skipped_in_a_row < self.recipe.engine.max_bad_steps:
            return
        row, self.trainer.skipped_in_a_row = self.trainer.skipped_in_a_row, 0  # counted anew
        self._end_update(epoch)  # whoever goes on does so after it
        self._save()
        found = culprits(self.trainer, group, epoch)
        causes = self.ranks.gather(found)
        file = keep_batch(self.folder.path, self.ranks.rank, self.trainer.updates, group, found)
        cause, lower = next(filter(None, causes), NO_CAUSE), self.recipe.optimizer.lr / 2
        raise TrainingDiverged(
            f"the gradient was not finite in {row} updates in a row: {cause}."
            f" The last good state is saved, the last images are in {file}. Go on with a lower rate by"
            f" --set optimizer.lr={lower:.2g} --allow-changed optimizer.lr (or with optimizer.clip"
            " likewise), or in another engine.precision"
        )

    # -- saving and resuming ---------------------------------------------------------------------

    def _save(self, *, best: bool = False) -> None:
        state = self.trainer.state()
        windows = self.ranks.gather(self.window.state())
        if self.ranks.first:
            state["progress"] |= {
                "windows": windows,
                "seconds": self.seconds + self.window.total_seconds,
                **self.selection.state(),
            }
            self.folder.checkpoints.save(state, self.trainer.updates, best=best)
        self.ranks.wait()
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        state, damaged = self.folder.checkpoints.newest()
        self.ranks.wait()  # all have read before any writes
        if state is not None:
            self.trainer.load(state)
            self.selection.load(state["progress"])
            self.seconds = state["progress"]["seconds"]
            # of older checkpoints, and of other numbers of ranks, what was not yet logged is lost
            windows = state["progress"].get("windows", [])
            if len(windows) == self.ranks.count:
                self.window.load(windows[self.ranks.rank])
        if self.ranks.first:
            for checkpoint, fault in damaged:
                console.print(
                    f"{checkpoint} is damaged ({fault}): using the one before",
                    style="yellow",
                    soft_wrap=True,
                )
                self.folder.checkpoints.remove(checkpoint)
            self.folder.forget_after(self.trainer.updates)
            if state is not None:
                console.print(
                    f"continuing {self.folder.path} at update {self.trainer.updates}",
                    soft_wrap=True,
                )
        if state is not None:
            self._lose_patience()

    # -- what is seen ----------------------------------------------------------------------------

    def _entry(self, epoch: int) -> dict[str, Any]:
        """One line of the metrics file, over the updates since the last one."""
        losses, figures = self.window.close()
        images = self.recipe.schedule.batch_size
        return {
            "update": self.trainer.updates,
            "epoch": epoch + 1,
            **self._means(losses),
            "lr": self.trainer.lr,
            "gradient_norm": figures["gradient_norm"],
            "images_per_second": images * figures["updates"] / figures["seconds"],
            "data_wait": figures["waited"] / figures["seconds"],
            "memory_gb": self.ranks.memory_gb(),
            "skipped": self.trainer.skipped,
        }

    def _means(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Means over the ranks."""
        names = sorted(losses)
        means = self.ranks.sum(torch.tensor([losses[name] for name in names])) / self.ranks.count
        return dict(zip(names, means.tolist(), strict=True))

    def _log(self, entry: dict[str, Any]) -> None:
        if self.ranks.first:
            self.folder.log(entry)
        for callback in self.callbacks:
            callback.on_log(entry)

    def _draw(self) -> None:
        draw_curves(read_metrics(self.folder.path), self.folder.path, self.recipe.name)

    def _finish(self, used: Mapping[str, Any]) -> dict[str, Any]:
        best = self.folder.checkpoints.best()
        results = {
            "name": self.recipe.name,
            **self.recipe.facts,
            "seed": self.recipe.seed,
            **used,
            "updates": self.trainer.updates,
            "skipped": self.trainer.skipped,
            "seconds": self.seconds + self.window.total_seconds,
            f"best_{self.recipe.measure}": self.selection.best,
            "measures": self.selection.measures,
            **self.selection.recorded,
            "stopped_early": self.total < self.planned,
            "checkpoint": f"checkpoints/step-{self.trainer.updates:08d}",
            "best_checkpoint": None if best is None else f"checkpoints/{best.name}",
        }
        for callback in self.callbacks:
            callback.on_end(results)
        if self.ranks.first:
            self._draw()
            self.folder.finish(results)  # last: a run that is killed before does all of this again
        self.ranks.wait()
        return results
