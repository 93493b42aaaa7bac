"""`tl.segment.train`: a segmentation network, from a recipe and the values that replace its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from tokenlabel.api.warmup import warmed_up
from tokenlabel.choices import PRECISION, Arithmetic, Device
from tokenlabel.runs.recipe_file import begun_recipe, override, read_recipe
from tokenlabel.runs.results import TrainResult
from tokenlabel.segmentation.recipe import (
    HeadKind,
    Layout,
    SegmentationModelChoice,
    SegmentationRecipe,
)

if TYPE_CHECKING:
    from tokenlabel.training.callbacks import Callback

__all__ = ["Choices", "compose_recipe", "find_recipe", "train"]

_FROZEN_VIEWS = 4  # of each image, whose features are kept
# arguments of a student's heads, which are gone from here
_NOT_BACKBONE = ("global_pool", "heads")


class Choices(TypedDict, total=False):
    """What a training takes in place of its recipe's values; None leaves these."""

    recipe: str | SegmentationRecipe  # a name, a YAML file or the recipe itself
    data: str | Path | None
    backbone: str | None
    weights: str | None
    head: HeadKind | None
    freeze_backbone: bool | None
    labels: str | Path | None
    classes: str | Path | None
    ignore_index: int | None
    layout: Layout | None
    split: str | None
    updates: int | None
    max_steps: int | None
    patience: int | None
    batch_size: int | None
    lr: float | None
    seed: int | None
    device: Device | None
    dtype: Arithmetic | None
    device_batch: int | Literal["auto"] | None
    workers: int | None
    settings: Sequence[str]  # any other values, as "section.key=value"


def compose_recipe(
    *, output: str | Path = "runs/segment", **choices: Unpack[Choices]
) -> SegmentationRecipe:
    """The recipe of a training in the folder `output` with all that was chosen.

    The warm-up of another number of updates than the recipe's is at most a tenth of them, which is
    said. Raises InputError for what does not fit.
    """
    dtype = choices.get("dtype")
    given = {
        "data.root": _text(choices.get("data")),
        "data.classes": _text(choices.get("classes")),
        "data.ignore_index": choices.get("ignore_index"),
        "data.layout": choices.get("layout"),
        "data.train_split": choices.get("split"),
        "data.workers": choices.get("workers"),
        "model.backbone": choices.get("backbone"),
        "model.head": choices.get("head"),
        "data.labels": _text(choices.get("labels")),
        "schedule.updates": choices.get("updates"),
        "schedule.max_steps": choices.get("max_steps"),
        "schedule.batch_size": choices.get("batch_size"),
        "schedule.patience": choices.get("patience"),
        "optimizer.lr": choices.get("lr"),
        "engine.device": choices.get("device"),
        "engine.device_batch": choices.get("device_batch"),
        "engine.precision": None if dtype is None else PRECISION[dtype],
        "seed": choices.get("seed"),
    }
    changes = _start(choices.get("weights"))
    if choices.get("freeze_backbone"):
        changes |= {"model.freeze": True, "augment.views": _FROZEN_VIEWS}
    changes |= {name: value for name, value in given.items() if value is not None}
    texts = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
    texts += choices.get("settings", ())
    base = find_recipe(choices.get("recipe", "lvvit_s_upernet_ade20k"))
    chosen = override(base, texts)
    if chosen.model.backbone != base.model.backbone:
        # arguments and stochastic depth of the recipe are those of its own backbone
        own = SegmentationModelChoice()
        model = dataclasses.replace(base.model, kwargs=own.kwargs, drop_path=own.drop_path)
        chosen = override(dataclasses.replace(base, model=model), texts)
    begun = begun_recipe(Path(output), SegmentationRecipe)
    return warmed_up(chosen, base, begun, choices.get("settings", ()))


def train(
    *,
    output: str | Path = "runs/segment",
    allow_changed: Iterable[str] = (),
    callbacks: Iterable[Callback] = (),
    **choices: Unpack[Choices],
) -> TrainResult:
    """Train a segmentation network in the folder `output`; a run that is there already goes on.

    See `tokenlabel segment train --help` for the choices; `allow_changed` and `callbacks` are those of
    `tokenlabel.training.engine.fit`. Raises InputError for what the user can fix.
    """
    recipe = compose_recipe(output=output, **choices)
    from tokenlabel.models import weights_or
    from tokenlabel.segmentation import run

    with weights_or("give --weights FILE, or leave --weights out to start from random weights"):
        return run.train(recipe, output, callbacks=callbacks, allow_changed=allow_changed)


def find_recipe(recipe: str | SegmentationRecipe) -> SegmentationRecipe:
    """A recipe by name or file, or itself."""
    if isinstance(recipe, SegmentationRecipe):
        return recipe
    if recipe.endswith((".yaml", ".yml")):
        return read_recipe(recipe, SegmentationRecipe)
    from tokenlabel.recipes.segmentation import get_segmentation_recipe

    return get_segmentation_recipe(recipe)


def _start(weights: str | None) -> dict[str, Any]:
    """The weights to start from and, where their folder names it, the backbone that they are of."""
    from tokenlabel.runs.start import start_of

    if weights is None:
        return {}
    start = start_of(weights)
    if start is None:
        return {"model.weights": weights}
    return {
        "model.weights": weights,
        "model.backbone": start.name,
        "model.kwargs": {k: v for k, v in start.kwargs.items() if k not in _NOT_BACKBONE},
        "model.in_chans": start.in_chans,
        "model.mean": start.mean,
        "model.std": start.std,
        "data.channels": start.channels,
    }


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
