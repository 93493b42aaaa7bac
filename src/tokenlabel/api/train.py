"""`tl.train`: a student, from a recipe and the values that replace its own."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tokenlabel.api.warmup import warmed_up
from tokenlabel.choices import PRECISION, Arithmetic, Cache, Device
from tokenlabel.errors import InputError
from tokenlabel.progress import console, first_process
from tokenlabel.runs.recipe import Recipe
from tokenlabel.runs.recipe_file import begun_recipe, override, read_recipe, scaled
from tokenlabel.runs.results import TrainResult

if TYPE_CHECKING:
    import torch

    from tokenlabel.annotators.protocol import Annotator
    from tokenlabel.annotators.spec import AnnotatorSpec
    from tokenlabel.data.source import ImageSource
    from tokenlabel.labels.store import LabelStore
    from tokenlabel.training.callbacks import Callback

__all__ = ["train", "train_recipe", "usual_recipe"]

_HOLDOUT = 0.1  # of the training images, where the data has no validation part
_JUDGED = 1000  # images whose new labels are compared with their classes
_OF_ANY_MODEL = ("heads",)  # of a recipe's `model.kwargs`; others are those of its own model


def train(
    *,
    output: str | Path = "runs/train",
    annotator: str | Mapping[str, Any] | AnnotatorSpec | None = None,
    allow_changed: Iterable[str] = (),
    callbacks: Iterable[Callback] = (),
    **choices: Any,
) -> TrainResult:
    """Train a student in the folder `output`; a run that is there goes on.

    `choices` are those of `train_recipe`. `annotator`, a spec as in `tl.annotate` or a classifier's
    name alone, labels the images first, or every augmented view with `online`. `allow_changed` names
    values in which the recipe may differ from the run that is there, and `callbacks` follow it (see
    `tokenlabel.training.engine.fit`). Raises InputError, before anything is written, for what the user
    can fix.
    """
    from tokenlabel.models import weights_or
    from tokenlabel.training import student

    recipe = train_recipe(output=output, **choices)
    online = None
    if annotator is not None and recipe.supervision.needs == "annotator":
        online = _online(annotator, recipe)
    elif annotator is not None and recipe.supervision.needs == "store":
        if recipe.data.stores:
            raise InputError(
                f"an annotator ({annotator}) and labels ({', '.join(recipe.data.stores)}) are both"
                " given: choose one"
            )
        recipe = _annotated(recipe, annotator, Path(output) / "labels")
    with weights_or("give --weights FILE, or train from random weights (--recipe starter)"):
        return student.train(
            recipe, output, annotator=online, callbacks=callbacks, allow_changed=allow_changed
        )


def train_recipe(
    *,
    data: str,
    output: str | Path = "runs/train",
    recipe: str | Recipe | None = None,
    model: str | None = None,
    image_size: int | None = None,
    in_chans: int | None = None,
    channels: Sequence[int] = (),
    weights: str | None = None,
    freeze: Literal["none", "backbone"] | None = None,
    labels: str | Sequence[str] | None = (),
    online: bool = False,
    supervision: str | None = None,
    mix: str | None = None,
    split: str | None = None,
    val: str | None = None,
    val_split: str | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    patience: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    scale: Literal["linear", "sqrt", "none"] = "linear",
    seed: int | None = None,
    device: Device | None = None,
    dtype: Arithmetic | None = None,
    device_batch: int | Literal["auto"] | None = None,
    workers: int | None = None,
    cache: Cache | None = None,
    settings: Sequence[str] = (),
) -> Recipe:
    """The recipe that `train` follows: a recipe, by name or YAML file, with values replaced.

    Without one it is `finetune` where there are weights to start from: those that `weights` names, or
    the model's pretrained ones where they can be had; else `starter`, from random weights.
    `weights` in a folder say which model they are of, and without a recipe its image size. Another
    model than theirs, or the recipe's, is built without the arguments of that one (`model.kwargs`).
    `settings` are further ones, "section.key=value". What follows from them is said: the learning
    rate at another batch size (by the rule `scale`), and the warm-up of another number of epochs, at
    most a tenth of them.
    Raises InputError for values that do not fit.
    """
    begun = begun_recipe(Path(output), Recipe)
    named, notice = (recipe, None) if recipe is not None else usual_recipe(model, weights, begun)
    base = _started(_find(named), weights, sized=recipe is None)
    chosen = _located(base, data, split, val, val_split, begun)
    if notice is not None:  # of images that are there
        console.print(notice, soft_wrap=True)
    if batch_size is not None and batch_size != chosen.schedule.batch_size:
        before = chosen
        chosen = scaled(chosen, batch_size, scale)
        if lr is None:
            console.print(
                f"batch size {before.schedule.batch_size} -> {batch_size}: learning rate"
                f" {before.optimizer.lr:.3g} -> {chosen.optimizer.lr:.3g} (--scale {scale})"
            )
    texts = [
        *_given("model.name", model),
        *_given("model.image_size", image_size),
        *_given("model.in_chans", in_chans),
        *_given("data.channels", list(channels) or None),
        *_given("model.weights", weights),
        *_given("data.labels", _one_or_all(labels)),
        *_given("model.freeze", freeze),
        *_given("data.workers", workers),
        *_given("data.cache", cache),
        *_given("supervision.kind", supervision),
        *_given("supervision.online", online or None),
        *_given("mixing.kind", mix),
        *_given("schedule.epochs", epochs),
        *_given("schedule.max_steps", max_steps),
        *_given("schedule.patience", patience),
        *_given("optimizer.lr", lr),
        *_given("engine.device", device),
        *_given("engine.device_batch", device_batch),
        *_given("engine.precision", None if dtype is None else PRECISION[dtype]),
        *_given("seed", seed),
        *settings,
    ]
    located, chosen = chosen, override(chosen, texts)
    if chosen.model.name != base.model.name:
        kept = {key: value for key, value in base.model.kwargs.items() if key in _OF_ANY_MODEL}
        chosen = override(_with_model(located, kwargs=kept), texts)
    return warmed_up(chosen, base, begun, settings)


def usual_recipe(
    model: str | None, weights: str | None, begun: Recipe | None
) -> tuple[str, str | None]:
    """The recipe to follow where none is named, and what a user should know of it.

    A run that goes on keeps that which it was begun by.
    """
    from tokenlabel import recipes
    from tokenlabel.models.reach import out_of_reach

    finetune, starter = "finetune", "starter"
    if begun is not None:
        return finetune if begun.name == finetune else starter, None
    name = model or recipes.get(finetune).model.name
    if weights is not None or (reason := out_of_reach(name)) is None:
        return finetune, None
    return starter, (
        f"no pretrained weights of {name} ({reason}): training from random weights with recipe starter,"
        " which needs many more images. --weights FILE starts from other weights; --recipe small"
        " trains a small model in minutes on a CPU"
    )


def _find(recipe: str | Recipe) -> Recipe:
    """A recipe by name or file."""
    from tokenlabel import recipes

    if isinstance(recipe, Recipe):
        return recipe
    return read_recipe(recipe) if recipe.endswith((".yaml", ".yml")) else recipes.get(recipe)


def _started(recipe: Recipe, weights: str | None, sized: bool) -> Recipe:
    """The recipe with the model that the weights of a folder are of, and (`sized`) its image size."""
    from tokenlabel.runs.start import start_of

    start = None if weights is None else start_of(weights)
    if start is None:
        return recipe
    size = start.image_size if sized and start.image_size else recipe.model.image_size
    recipe = _with_model(
        recipe,
        name=start.name,
        kwargs=start.kwargs,
        image_size=size,
        in_chans=start.in_chans,
        mean=start.mean,
        std=start.std,
    )
    return dataclasses.replace(
        recipe, data=dataclasses.replace(recipe.data, channels=start.channels)
    )


def _with_model(recipe: Recipe, **values: Any) -> Recipe:
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, **values))


def _located(
    recipe: Recipe,
    data: str,
    split: str | None,
    val: str | None,
    val_split: str | None,
    begun: Recipe | None,
) -> Recipe:
    """The recipe with its images: the validation part of the data, where it has one, is used."""
    from tokenlabel.data.open import open_validation

    images = dataclasses.replace(recipe.data, train=data)
    if split is not None:
        images = dataclasses.replace(images, train_split=split)
    if val_split is not None:
        images = dataclasses.replace(images, val_split=val_split)
    if val is not None:
        images = dataclasses.replace(images, val=val)
    elif images.val is None and images.val_split is not None:
        images = dataclasses.replace(images, val=data)
    elif images.val is None and (found := open_validation(data)) is not None:
        images = dataclasses.replace(images, val=data, val_split=found.found.part)
    elif images.val is None and images.holdout is None:
        share = _HOLDOUT if begun is None else begun.data.holdout
        images = dataclasses.replace(images, holdout=share)
    return dataclasses.replace(recipe, data=images)


def _one_or_all(labels: str | Sequence[str] | None) -> str | Sequence[str] | None:
    """One store alone, several as a list, None for none."""
    if labels is None or isinstance(labels, str):
        return labels
    return labels[0] if len(labels) == 1 else list(labels) or None


def _given(path: str, value: Any) -> list[str]:
    return [] if value is None else [f"{path}={json.dumps(value)}"]


# -- annotators -----------------------------------------------------------------------------------


def _annotated(
    recipe: Recipe, annotator: str | Mapping[str, Any] | AnnotatorSpec, store: Path
) -> Recipe:
    """The recipe with the labels that an annotator gives its images, made if they are not there."""
    from tokenlabel.annotators.run import run
    from tokenlabel.data.open import open_images
    from tokenlabel.labels.store import LabelStore
    from tokenlabel.training.ranks import Ranks
    from tokenlabel.training.student import require_trainable

    require_trainable(recipe)  # before all images are labeled
    ranks, images = Ranks(recipe.engine), recipe.data
    source = open_images(images.train, images.train_split, "train", orientation=images.orientation)
    built = _built(annotator, source, ranks.device)
    run(source, built, store, channels=images.channels)
    ranks.wait()  # the ranks share the work: all must have done theirs
    if first_process():
        for line in _faults(LabelStore(store), source):
            console.print(line, soft_wrap=True)
    return dataclasses.replace(recipe, data=dataclasses.replace(images, labels=str(store)))


def _faults(labels: LabelStore, source: ImageSource) -> Iterator[str]:
    """What a user should know of labels that were just made."""
    from tokenlabel.labels.health import check_health

    made = labels.manifest
    if made.left_out:
        first = made.left_out[0]
        yield (
            f"the annotator left out {len(made.left_out)} of {len(source)} images, {first.key} for one"
            f" ({first.reason}); {labels.location}/manifest.json lists all"
        )
    if made.words or made.class_names != tuple(source.class_names):
        return
    some = random.Random(0).sample(range(len(source)), min(_JUDGED, len(source)))
    known = {source.keys[i]: source.labels[i] for i in some if source.labels[i] >= 0}
    if truth := {key: label for key, label in known.items() if key in labels}:
        for warning in check_health(labels, truth, source.class_names).warnings:
            yield f"warning: {warning}"


def _online(
    annotator: str | Mapping[str, Any] | AnnotatorSpec, recipe: Recipe
) -> Callable[[Any], Sequence[Any]]:
    """What labels a batch of augmented views, [B, C, H, W] from 0 to 255."""
    from tokenlabel.annotators.online import OnlineLabels
    from tokenlabel.data.open import open_images
    from tokenlabel.training.ranks import Ranks

    source = open_images(recipe.data.train, recipe.data.train_split, "train")
    built = _built(annotator, source, Ranks(recipe.engine).device)
    return OnlineLabels(built, recipe.model.in_chans)


def _built(
    annotator: str | Mapping[str, Any] | AnnotatorSpec, source: ImageSource, device: torch.device
) -> Annotator[Any]:
    from tokenlabel.annotators.kinds import build_annotator
    from tokenlabel.models import weights_or

    with weights_or(
        "give --annotator FOLDER (written by `tokenlabel teach`), or --labels STORE (made by"
        " `tokenlabel annotate`)"
    ):
        return build_annotator(annotator, class_names=source.class_names, device=device)
