"""`fit`: the only engine. Students, segmentation networks and taught classifiers are specs of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import nn

from tokenlabel.errors import InputError
from tokenlabel.progress import console
from tokenlabel.runs.folder import RunFolder
from tokenlabel.runs.recipe import BaseRecipe
from tokenlabel.runs.results import TrainResult
from tokenlabel.training.callbacks import Callback, Terminal, Trackers, check_trackers
from tokenlabel.training.device_batch import fitting_batch
from tokenlabel.training.loop import Batches, Loop, Validation
from tokenlabel.training.precision import quicker_precision
from tokenlabel.training.ranks import Ranks
from tokenlabel.training.sheets import Sheets
from tokenlabel.training.trainer import Trainer

__all__ = ["TaskSpec", "fit"]


class TaskSpec(Protocol):
    """What a run trains, on what, how it is judged, and the pictures of both.

    `fit` asks for the first four in this order, on every rank; InputErrors leave nothing behind. The
    pictures are asked for on the first rank.
    """

    def build(self, ranks: Ranks) -> nn.Module:
        """The task: a module with a `student` (what is optimized, averaged and saved) that maps
        (batch, `Step`) to named scalar losses, "loss" among them, each a mean over the batch's images.
        """

    def batches(self, ranks: Ranks) -> Batches:
        """This rank's share of the training images."""

    def evaluator(self, ranks: Ranks) -> Validation | None:
        """Named measures of a model, equal on all ranks; None where nothing is validated."""

    def facts(self) -> Mapping[str, Any]:
        """What the run writes down: "classes" (their names), "images" (their number) and, as far as
        they apply, "left_out" (reason -> number) and the fingerprints that `RunFolder` compares.
        """

    def first_batch(self) -> Image.Image:
        """The first samples of the first update, drawn."""

    def answers(self, run: Path) -> Image.Image | None:
        """What the model of a complete run answers on some images of its validation, drawn."""


def fit(
    recipe: BaseRecipe,
    spec: TaskSpec,
    output: str | Path,
    *,
    callbacks: Iterable[Callback] = (),
    allow_changed: Iterable[str] = (),
) -> TrainResult:
    """Train to the end of the recipe's schedule in the folder `output`; a run that is there goes on.

    May be called any number of times in one process, and by every rank of a torchrun. `allow_changed`
    names the values in which the recipe may differ from the run that is there. Raises InputError for
    what the user can fix, Preempted when asked to stop (the state is saved), and TrainingDiverged when
    gradients stay infinite (the last good state is saved).
    """
    check_trackers(recipe.trackers)
    folder = RunFolder(output, recipe, allow_changed)
    if folder.complete and folder.results is not None:
        folder.require_same(spec.facts())  # its results must not pass for those of other images
        console.print(f"{folder.path} is complete: nothing to train", soft_wrap=True)
        return TrainResult(folder.path, folder.results)
    # only now: of another length than the run that is there, that is the fault to tell
    recipe.schedule.course(1)
    ranks = Ranks(recipe.engine)
    begun_in = folder.precision() if recipe.engine.precision == "auto" else None
    if begun_in is not None:
        ranks.precision = begun_in
    task = spec.build(ranks)
    batches = spec.batches(ranks)
    if recipe.engine.device_batch == "auto" and ranks.device.type != "cpu":
        ranks.device_batch = fitting_batch(task, batches, ranks)
        batches = spec.batches(ranks)
    validation = spec.evaluator(ranks)
    if validation is None and recipe.schedule.patience is not None:
        raise InputError("schedule.patience waits for validation, but there are no images for it")
    if recipe.engine.precision == "auto" and begun_in is None and ranks.device.type == "cpu":
        before = ranks.precision
        ranks.precision = quicker_precision(task, batches, ranks)
        if ranks.precision != before:  # batches may have kept what the trial made of them
            batches = spec.batches(ranks)
    facts = {**spec.facts(), "precision": ranks.precision}
    ranks.agree(repr(facts), "images or classes")
    trainer = Trainer(task, recipe, ranks, batches.updates_per_epoch)
    sheets = Sheets(spec, folder.path)
    followers = [Terminal(), Trackers(recipe.trackers, folder.path), sheets, *callbacks]
    folder.checkpoints.require_space(trainer.state_bytes())
    ranks.wait()  # all have looked at the folder before the first one writes into it
    with folder.opened(facts) if ranks.first else nullcontext():
        ranks.wait()
        loop = Loop(trainer, batches, folder, recipe, validation, followers if ranks.first else [])
        used = {"images": facts.get("images"), "left_out": facts.get("left_out", {})}
        return TrainResult(folder.path, loop.run(used))
