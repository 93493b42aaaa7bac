"""The annotator of a comparison for which none is named: a classifier taught on its training images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenlabel.api.teach import teach
from tokenlabel.compare.budget import measured_teaching, teaching_epochs
from tokenlabel.errors import InputError
from tokenlabel.models import NoWeightsError, build_model
from tokenlabel.runs.open import TAUGHT_RUN
from tokenlabel.runs.recipe import Recipe
from tokenlabel.runs.recipe_file import begun_recipe
from tokenlabel.training.teach_recipe import TeachRecipe

__all__ = ["require_weights", "taught_annotator"]

_USUAL = TeachRecipe()  # what `teach` does unless it is told otherwise


def require_weights(folder: Path, data: str) -> None:
    """Get what an annotator starts from, unless one was taught in `folder` already.

    Raises InputError, with all ways to have labels nevertheless, where that cannot be had.
    """
    if (folder / "config.json").is_file():
        return
    model = _USUAL.model.name
    try:
        build_model(model, pretrained=True)
    except NoWeightsError as error:
        raise InputError(
            f"no annotator is given, and the pretrained weights of {model} to teach one from are not"
            f" available ({error.reason}): give --annotator NAME (a timm classifier, or a folder that"
            " `tokenlabel teach` wrote) or --labels STORE (made by `tokenlabel annotate`). To teach one"
            f" from random weights: `tokenlabel teach --data {data} --output FOLDER --no-pretrained`"
        ) from error


def taught_annotator(
    folder: Path, student: Recipe, budget: str | None, say: Callable[[str], object]
) -> str:
    """Teach a classifier in `folder`, or go on; returns what a report says of it.

    It sees the images that the `student` is trained on, less a share that tells its accuracy: those
    that the student is judged on where they are held out too, for both hold out by one rule. A
    `budget` shortens the teaching, which keeps its length once it has begun. Raises InputError.
    """
    images = student.data
    choices: dict[str, Any] = {
        "data": images.train,
        "split": images.train_split,
        "model": _USUAL.model.name,
        "in_chans": student.model.in_chans,
        "channels": images.channels or (),
        "holdout": _USUAL.data.holdout if images.val is not None else images.holdout,
        "device": student.engine.device,
        "cache": images.cache,
        "epochs": _USUAL.schedule.epochs,
    }
    begun = begun_recipe(folder / TAUGHT_RUN, TeachRecipe)
    if begun is not None:
        choices["epochs"] = begun.schedule.epochs
    elif budget is not None:
        rate = measured_teaching(choices, folder.with_name("trial"))
        choices["epochs"] = teaching_epochs(rate, budget, choices["epochs"])
    say(f"teaching {choices['model']} for {choices['epochs']} epochs, to annotate")
    taught = teach(**choices, output=folder)
    return (
        f"{choices['model']}, taught for {choices['epochs']} epochs on {taught.images:,} images: top-1"
        f" {taught.accuracy:.1%} of {taught.held_out:,} others"
    )
