"""`tokenlabel train`: train a transformer on a folder of images."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tokenlabel.runs.recipe import Recipe
from tokenlabel.runs.recipe_file import override, read_recipe, scaled, to_yaml
from tokenlabel.runs.results import TrainResult

__all__ = ["train"]

_HOLDOUT = 0.1  # of the training images, where the data has no validation part


def train(
    *,
    data: str,
    output: Path = Path("runs/train"),
    recipe: str = "starter",
    model: str | None = None,
    image_size: int | None = None,
    weights: str | None = None,
    annotator: str | None = None,
    labels: str | None = None,
    online: bool = False,
    supervision: Literal["labels", "distillation", "token-labels"] | None = None,
    mix: Literal["none", "mixtoken", "cutmix", "mixup", "cutmix-or-mixup"] | None = None,
    val: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    scale: Literal["linear", "sqrt", "none"] = "linear",
    seed: int | None = None,
    workers: int | None = None,
    overrides: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = (),
    show: bool = False,
) -> TrainResult | None:
    """Train a vision transformer on a folder of images, with one soft label per patch token.

    tokenlabel train --data photos --annotator convnext_tiny.in12k_ft_in1k

    labels the photos with that classifier once, then trains on image and token labels together.
    Stopped or killed, the same command goes on where it was. On several GPUs:
    torchrun --nproc-per-node 8 -m tokenlabel train ...

    Args:
        data: folder with one subfolder per class, or with train/ and val/ holding such; or a tar,
            WebDataset shards, hfds/owner/name.
        output: folder of the run: recipe, metrics, curves, checkpoints, results.
        recipe: where all values come from that you do not give: a name (`starter` for your own
            images; `lvvit_s_224` and others as published) or a YAML file.
        model: the transformer to train: lvvit_t, lvvit_s, or any name that timm knows.
        image_size: side of the training images in pixels.
        weights: start from these weights: a checkpoint file, or `pretrained` for timm's own.
        annotator: timm name (or folder) of the classifier that labels the images first; its
            classes must be those of the folder (`tokenlabel teach` makes such a one).
        labels: a label store made by `tokenlabel annotate`, in place of an annotator.
        online: ask the annotator anew for every augmented view, and store nothing.
        supervision: what to learn from: token-labels is the method; labels (ground truth only) and
            distillation (the annotator's label of the whole image) are what to compare it with.
        mix: how the images of a batch are mixed.
        val: validation images, if they are not in a val/ folder beside train/. Where there are none, a
            tenth of each class is held out for validation (--set data.holdout=0 holds out nothing).
        epochs: passes over the images, in place of the recipe's.
        batch_size: images per update over all GPUs together, in place of the recipe's.
        scale: how the learning rate follows a changed batch size.
        seed: of initial weights, order and augmentation.
        workers: processes per GPU that load images.
        overrides: any other value of the recipe, as section.key=value ...
        show: print the complete recipe as YAML and stop.
    """
    chosen = _located(_find(recipe), data, val, output)
    if batch_size is not None and batch_size != chosen.schedule.batch_size:
        before = chosen
        chosen = scaled(chosen, batch_size, scale)
        _say_scaled(before, chosen, scale)
    chosen = override(
        chosen,
        [
            *_given("model.name", model),
            *_given("model.image_size", image_size),
            *_given("model.weights", weights),
            *_given("data.labels", labels),
            *_given("data.workers", workers),
            *_given("supervision.kind", supervision),
            *_given("supervision.online", online or None),
            *_given("mixing.kind", mix),
            *_given("schedule.epochs", epochs),
            *_given("seed", seed),
            *overrides,
        ],
    )
    if show:
        print(to_yaml(chosen), end="")
        return None
    from tokenlabel.training import student

    if annotator is None or chosen.supervision.needs == "nothing":
        return student.train(chosen, output)
    if chosen.supervision.needs == "annotator":
        return student.train(chosen, output, annotator=_online(annotator, chosen))
    return student.train(_annotated(chosen, annotator, output / "labels"), output)


def _find(recipe: str) -> Recipe:
    """A recipe by name or file."""
    from tokenlabel import recipes

    return read_recipe(recipe) if recipe.endswith((".yaml", ".yml")) else recipes.get(recipe)


def _located(recipe: Recipe, data: str, val: str | None, output: Path) -> Recipe:
    """The recipe with its images: its validation part, where it has one, is used."""
    from tokenlabel.data.open import open_validation

    images = dataclasses.replace(recipe.data, train=data)
    if val is not None:
        images = dataclasses.replace(images, val=val)
    elif images.val is None and images.val_split is not None:
        images = dataclasses.replace(images, val=data)
    elif images.val is None and (found := open_validation(data)) is not None:
        images = dataclasses.replace(images, val=data, val_split=found.found.part)
    elif images.val is None and images.holdout is None:
        images = dataclasses.replace(images, holdout=_held_out_before(output))
    return dataclasses.replace(recipe, data=images)


def _held_out_before(output: Path) -> float | None:
    """The share that a run held out which is to go on; for a new run the usual one."""
    known = output / "recipe.yaml"
    return read_recipe(known).data.holdout if known.is_file() else _HOLDOUT


def _given(path: str, value: Any) -> list[str]:
    return [] if value is None else [f"{path}={json.dumps(value)}"]


def _say_scaled(before: Recipe, after: Recipe, rule: str) -> None:
    from tokenlabel.progress import console

    console.print(
        f"batch size {before.schedule.batch_size} -> {after.schedule.batch_size}: learning rate"
        f" {before.optimizer.lr:.3g} -> {after.optimizer.lr:.3g} (rule: {rule}; see --scale)"
    )


def _annotated(recipe: Recipe, annotator: str, store: Path) -> Recipe:
    """The recipe with the labels that `annotator` gives its images, made if they are not there."""
    from tokenlabel.cli.annotate import annotate
    from tokenlabel.training.ranks import Ranks

    device = "cpu" if recipe.engine.device == "cpu" else "auto"
    images = recipe.data
    annotate(
        data=images.train, split=images.train_split, output=store, model=annotator, device=device
    )
    Ranks(recipe.engine).wait()  # the ranks share the work: all must have done theirs
    return dataclasses.replace(recipe, data=dataclasses.replace(images, labels=str(store)))


def _online(annotator: str, recipe: Recipe) -> Callable[[Any], Sequence[Any]]:
    """What labels a batch of augmented views, [B, 3, H, W] uint8."""
    from tokenlabel.annotators.timm_classifier import TimmAnnotator
    from tokenlabel.data.open import open_images
    from tokenlabel.training.ranks import Ranks

    source = open_images(recipe.data.train, recipe.data.train_split, "train")
    device = Ranks(recipe.engine).device
    teacher = TimmAnnotator(annotator, class_names=source.class_names, device=device)

    def label(images: Any) -> Sequence[Any]:
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        return teacher.annotate([teacher.prepare("", picture) for picture in pixels])

    return label
