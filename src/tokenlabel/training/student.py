"""Students: from a recipe to what the engine trains."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from PIL import Image
from timm.layers import DropPath
from torch import Tensor, nn

from tokenlabel.data.augment import Augmentation
from tokenlabel.data.batch import Batch
from tokenlabel.data.loader import loader_workers, train_loader
from tokenlabel.data.matching import left_out_keys
from tokenlabel.data.samples import Targets
from tokenlabel.data.source import ImageSource, require_classes, without_classes
from tokenlabel.errors import InputError
from tokenlabel.evaluation.load import load_classifier, student_inputs
from tokenlabel.labels import LabelMap, LabelStore
from tokenlabel.models import DenseModel, create_model, load_weights
from tokenlabel.models.freeze import freeze_backbone
from tokenlabel.models.layout import require_whole_patches
from tokenlabel.pictures.answers import Answered, answer_sheet
from tokenlabel.progress import console, silent
from tokenlabel.runs.open import saved_weights
from tokenlabel.runs.recipe import Recipe
from tokenlabel.runs.results import TrainResult
from tokenlabel.training.batches import (
    LoaderBatches,
    held_out_batches,
    image_facts,
    require_a_batch,
    update_batches,
)
from tokenlabel.training.callbacks import Callback
from tokenlabel.training.engine import fit
from tokenlabel.training.images import training_images
from tokenlabel.training.loop import Validation
from tokenlabel.training.ranks import Ranks
from tokenlabel.training.sheets import SHEET, first_samples
from tokenlabel.training.stores import (
    fitted,
    of_one,
    of_several_classes,
    of_words,
    target_kind,
)
from tokenlabel.training.task import TokenLabelingTask
from tokenlabel.training.validate import validate, validate_features

__all__ = ["StudentSpec", "create_student", "require_trainable", "train"]


def train(
    recipe: Recipe,
    output: str | Path,
    *,
    annotator: Callable[[Tensor], Sequence[LabelMap]] | None = None,
    callbacks: Iterable[Callback] = (),
    allow_changed: Iterable[str] = (),
) -> TrainResult:
    """Train a student as the recipe says (see `tokenlabel.training.engine.fit`).

    `annotator` labels augmented views ([B, 3, H, W] in [0, 255]) where `supervision.online` asks for it.
    """
    spec = StudentSpec(recipe, annotator)
    return fit(spec.recipe, spec, output, callbacks=callbacks, allow_changed=allow_changed)


class StudentSpec:
    """A student of a labeled image source. `recipe` is as given, with what the images decide."""

    def __init__(
        self, recipe: Recipe, annotator: Callable[[Tensor], Sequence[LabelMap]] | None = None
    ) -> None:
        """Opens the images. Raises InputError for what the recipe lacks."""
        _check(recipe, annotator)
        self.annotator = annotator
        self.source, self.held_out = training_images(recipe.data, recipe.model.in_chans)
        if recipe.model.num_classes == 0:
            self.source = without_classes(self.source)
        require_a_batch(len(self.source), recipe)
        self.num_classes = _num_classes(recipe, self.source)
        self.recipe = dataclasses.replace(
            recipe,
            data=dataclasses.replace(
                recipe.data,
                train_split=self.source.found.part,
                val_split=self.held_out.found.part if self.held_out and recipe.data.val else None,
            ),
            model=dataclasses.replace(
                recipe.model,
                num_classes=self.num_classes,
                multi_label=recipe.model.multi_label or self.source.several is not None,
            ),
        )
        if self.recipe.model.multi_label:
            self.recipe = of_several_classes(self.recipe)
        needs = recipe.supervision.needs
        _require_something_to_learn(recipe, self.num_classes)
        # also where the method needs none: what their annotator left out, no arm trains on
        self.stores = [LabelStore(p) for p in recipe.data.stores] if needs != "annotator" else []
        if needs == "store":
            self.recipe = fitted(self.recipe, self.stores)
        elif needs == "annotator" and (words := getattr(annotator, "words", None)):
            self.recipe = of_words(self.recipe, words)

    def build(self, ranks: Ranks) -> TokenLabelingTask:
        recipe = self.recipe
        _leave_cores_to_loaders(recipe, ranks)
        self.student = create_student(recipe, self.num_classes)
        self.settings = student_inputs(recipe, self.student)  # its normalization holds for all
        self.settings.require_channels(recipe.model.in_chans)
        self.task = TokenLabelingTask(
            self.student,
            recipe.supervision,
            recipe.mixing,
            num_classes=self.num_classes,
            image_size=self.settings.image_size,
            seed=recipe.seed,
            total_epochs=recipe.total_epochs,
            mean=self.settings.mean,
            std=self.settings.std,
            class_weights=_class_weights(recipe, self.source, self.num_classes),
            annotator=self.annotator,
            token_head_chunk=recipe.engine.token_head_chunk,
            multi_label=recipe.model.multi_label,
        )
        return self.task

    def batches(self, ranks: Ranks) -> LoaderBatches[Batch]:
        recipe, settings = self.recipe, self.settings
        supervision, augment = recipe.supervision, recipe.augment
        targets: list[Targets] = []
        if supervision.needs == "store":
            targets = [
                Targets(
                    labels=store,
                    grid=self.student.grid(settings.image_size),
                    kind=target_kind(recipe, store),
                    smoothing=supervision.smoothing,
                    erased_tokens_train=augment.erased_tokens_train,
                )
                for store in self.stores
            ]
        augmentation = Augmentation(
            scale=augment.scale,
            ratio=augment.ratio,
            hflip=augment.hflip,
            vflip=augment.vflip,
            policy=augment.policy,
            color_jitter=augment.color_jitter,
            interpolation=augment.interpolation,
            erasing=augment.erasing,
            mean=settings.mean,
            std=settings.std,
        )
        batches = update_batches(
            train_loader,
            self.source,
            augmentation,
            image_size=settings.image_size,
            targets=targets[0] if targets else None,
            more=targets[1:],
            labels=self.stores,
            clean=supervision.needs_clean_view,
            repeats=augment.repeats,
            recipe=recipe,
            cache=recipe.data.cache,
            workers=recipe.data.workers,
            ranks=ranks,
        )
        self.loader = batches.loader
        return batches

    def evaluator(self, ranks: Ranks) -> Validation | None:
        if self.held_out is None:
            return None
        loader = held_out_batches(
            self.held_out,
            self.settings,
            self.recipe.data.workers,
            ranks,
            cache=self.recipe.data.cache,
        )

        judge = validate if self.num_classes else validate_features

        def measure(model: nn.Module) -> dict[str, float]:
            return judge(model, self.task, loader, ranks)

        return measure

    def facts(self) -> dict[str, Any]:
        facts = image_facts(self.source, self.held_out)
        left_out = left_out_keys(*self.stores)
        unlabeled = sum(key in left_out for key in self.source.keys) if left_out else 0
        if unlabeled:
            facts["images"] -= unlabeled
            facts["left_out"]["by the annotator"] = unlabeled
        return {
            **facts,
            "labels": of_one({
                "location": [store.location for store in self.stores],
                "index_sha256": [store.manifest.index_sha256 for store in self.stores],
                "vocabulary_sha256": [store.manifest.vocabulary_sha256 for store in self.stores],
            }) if self.stores else None,
            "annotator": getattr(self.annotator, "origin", None),
        }  # fmt: skip

    def first_batch(self, epoch: int = 0, count: int = SHEET) -> Image.Image:
        """The first `count` samples of an epoch, drawn as training makes them."""
        return first_samples(self.loader, self.source.class_names, epoch, count)

    def answers(self, run: Path) -> Image.Image | None:
        if self.held_out is None or self.num_classes == 0:
            return None
        student = load_classifier(run)

        def answer(images: Tensor) -> Answered:
            output = student.output(images)
            tokens = output.tokens if student.has_tokens else None
            return Answered(student.probabilities_of(output), tokens)

        return answer_sheet(answer, student.preprocessing, self.held_out, student.titles())


def create_student(recipe: Recipe, num_classes: int) -> DenseModel:
    """The student as training starts with it. Raises InputError for what cannot be built."""
    model = recipe.model
    torch.manual_seed(recipe.seed)
    student = create_model(
        model.name,
        num_classes,
        img_size=model.image_size,
        token_classes=model.token_classes,
        pretrained=model.weights == "pretrained",
        drop_path=model.drop_path,
        **model.arguments,
    )
    require_whole_patches(student.backbone)
    if model.drop_path and not any(isinstance(part, DropPath) for part in student.modules()):
        console.print(f"no branch of {model.name} can be dropped: model.drop_path changes nothing")
    if model.weights is not None and model.weights != "pretrained":
        fresh = load_weights(student, saved_weights(model.weights))
        if fresh:
            console.print(
                f"not in {model.weights}, so they start from random values: {', '.join(fresh)}"
            )
    if model.freeze == "backbone":
        freeze_backbone(student)
    return student


# -- what a recipe must fulfil, and what follows from it ------------------------------------------


def require_trainable(recipe: Recipe) -> None:
    """Raises InputError for what no labels can fix: too few images, a model that cannot be built.

    To be asked before images are labeled. Pretrained weights are left for later.
    """
    model = recipe.model
    known = dataclasses.replace(
        model, weights=None if model.weights == "pretrained" else model.weights
    )
    with silent():
        source, _ = training_images(recipe.data, model.in_chans)
        require_a_batch(len(source), recipe)
        create_student(dataclasses.replace(recipe, model=known), len(source.class_names) or 1)


def _check(recipe: Recipe, annotator: object) -> None:
    supervision = recipe.supervision
    if not recipe.data.train:
        raise InputError("data.train is empty: name the folder of the training images")
    if supervision.needs == "annotator" and annotator is None:
        raise InputError("supervision.online needs an annotator")
    if recipe.model.freeze == "backbone" and recipe.model.weights is None:
        raise InputError(
            "a frozen backbone needs weights, its features are random without: name some"
            " (--weights FILE, a run, or pretrained), or leave --freeze out"
        )
    supervision.check(recipe.total_epochs)


def _require_something_to_learn(recipe: Recipe, num_classes: int) -> None:
    kind, needs, data = recipe.supervision.kind, recipe.supervision.needs, recipe.data.train
    words = f"tokenlabel annotate words --data {quote(data)} --output LABELS --model NAME"
    if needs == "store" and not recipe.data.stores:
        if num_classes:
            raise InputError(
                f"supervision {kind!r} needs labels: give --annotator MODEL or --labels STORE (made by"
                " `tokenlabel annotate`), or train without them (--supervision labels)"
            )
        raise InputError(
            f"the images of {data} have no classes: give token labels (--labels LABELS, made by"
            f" `{words}`), or images in class folders"
        )
    if needs == "nothing" and not num_classes:
        raise InputError(
            f"the images of {data} have no classes, and supervision {kind!r} learns nothing else: give"
            " images in class folders, or --supervision token-labels with --labels LABELS, made by"
            f" `{words}`"
        )


def _num_classes(recipe: Recipe, source: ImageSource) -> int:
    if source.class_names:
        require_classes(source, recipe.data.train)
    found, wanted = len(source.class_names), recipe.model.num_classes
    if wanted not in (None, found):
        raise InputError(
            f"model.num_classes is {wanted}, but {recipe.data.train} has {found} classes"
        )
    return found


def _leave_cores_to_loaders(recipe: Recipe, ranks: Ranks) -> None:
    """On a CPU, a thread that shares its core with a loader makes all others wait for it."""
    if ranks.device.type == "cpu":
        own = (os.cpu_count() or 1) // ranks.count - loader_workers(recipe.data.workers)
        torch.set_num_threads(max(1, min(torch.get_num_threads(), own)))


def _class_weights(recipe: Recipe, source: ImageSource, num_classes: int) -> Tensor | None:
    """Weights [C] whose mean over the training images is 1, so that the loss keeps its scale."""
    wanted = recipe.supervision.class_weights
    if wanted == "none":
        return None
    counts = torch.bincount(torch.as_tensor(list(source.labels)), minlength=num_classes).double()
    if wanted == "balanced":
        weights = 1 / counts.clamp(min=1)
    elif len(wanted) == num_classes:
        weights = torch.tensor(wanted, dtype=torch.float64)
    else:
        raise InputError(
            f"supervision.class_weights has {len(wanted)} values for {num_classes} classes"
        )
    return (weights * counts.sum() / (weights * counts).sum()).float()
