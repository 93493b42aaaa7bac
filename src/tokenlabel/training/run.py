"""From a recipe to a trained student: the one place that puts all parts together."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tokenlabel.data.augment import Augmentation
from tokenlabel.data.batch import Batch
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.loader import Loader, Targets, eval_loader, train_loader
from tokenlabel.data.source import ImageSource, source_fingerprint
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelMap, LabelStore
from tokenlabel.models import DenseModel, create_model, load_weights
from tokenlabel.progress import console
from tokenlabel.runs.folder import RunFolder
from tokenlabel.runs.open import saved_weights
from tokenlabel.runs.recipe import Recipe
from tokenlabel.runs.results import TrainResult
from tokenlabel.supervision import AnnotatedMethod
from tokenlabel.training.images import training_images
from tokenlabel.training.loop import Validation, fit
from tokenlabel.training.ranks import Ranks, accumulation
from tokenlabel.training.task import TokenLabelingTask
from tokenlabel.training.trainer import Trainer
from tokenlabel.training.validate import validate

__all__ = ["create_student", "train"]


def train(
    recipe: Recipe,
    output: str | Path,
    *,
    annotator: Callable[[Tensor], Sequence[LabelMap]] | None = None,
) -> TrainResult:
    """Train as the recipe says, in the folder `output`; a run that is there already goes on.

    May be called any number of times in one process, and by every rank of a torchrun. `annotator`
    labels augmented views ([B, 3, H, W] uint8) where `supervision.online` asks for it. Raises
    InputError for what the user can mend, before anything is written.
    """
    _check(recipe, annotator)
    source, held_out = training_images(recipe.data)
    num_classes = _num_classes(recipe, source)
    recipe = dataclasses.replace(
        recipe,
        data=dataclasses.replace(
            recipe.data,
            train_split=source.found.part,
            val_split=held_out.found.part if held_out and recipe.data.val else None,
        ),
        model=dataclasses.replace(recipe.model, num_classes=num_classes),
    )
    store = LabelStore(str(recipe.data.labels)) if recipe.supervision.needs == "store" else None
    if store is not None:
        recipe = _fitted(recipe, store)
    folder = RunFolder(output, recipe)
    if folder.results is not None:
        console.print(f"{folder.path} is complete: nothing to train", soft_wrap=True)
        return TrainResult(folder.path, folder.results)
    ranks = Ranks(recipe.engine, recipe.trackers, str(folder.path))
    _leave_cores_to_loaders(recipe, ranks)
    student = create_student(recipe, num_classes)
    settings = _preprocessing(recipe, student)
    task = TokenLabelingTask(
        student,
        recipe.supervision,
        recipe.mixing,
        num_classes=num_classes,
        image_size=_image_size(recipe),
        seed=recipe.seed,
        total_epochs=recipe.total_epochs,
        mean=settings.mean,
        std=settings.std,
        class_weights=_class_weights(recipe, source, num_classes),
        annotator=annotator,
        token_head_chunk=recipe.engine.token_head_chunk,
    )
    batches = _TrainBatches(recipe, source, store, student, settings, ranks)
    validation = _validation(recipe, held_out, settings, task, ranks)
    trainer = Trainer(task, recipe, ranks, batches.updates_per_epoch)
    facts = {
        "images": len(source),
        "images_fingerprint": source_fingerprint(source),
        "images_found": source.found.as_dict(),
        "held_out": None if held_out is None else {
            "images": len(held_out), "fingerprint": source_fingerprint(held_out)
        },
        "classes": list(source.class_names),
        "labels": None if store is None else {
            "location": store.location, "index_sha256": store.manifest.index_sha256
        },
    }  # fmt: skip
    ranks.wait()  # all have looked at the folder before the first one writes into it
    if ranks.first:
        folder.open(recipe, facts)
    ranks.wait()
    with ranks.tracking(recipe):
        return TrainResult(folder.path, fit(trainer, batches, folder, recipe, validation))


def create_student(recipe: Recipe, num_classes: int) -> DenseModel:
    """The student as training starts with it. Raises InputError for what cannot be built."""
    model = recipe.model
    options = dict(model.kwargs)
    if model.drop_path:
        options["drop_path_rate"] = model.drop_path
    torch.manual_seed(recipe.seed)
    student = create_model(
        model.name,
        num_classes,
        img_size=model.image_size,
        pretrained=model.weights == "pretrained",
        **options,
    )
    if model.weights is not None and model.weights != "pretrained":
        fresh = load_weights(student, saved_weights(model.weights))
        if fresh:
            console.print(f"{model.weights} does not fill {', '.join(fresh)}: trained from scratch")
    return student


class _TrainBatches:
    """The loader's batches, as many together as an update accumulates."""

    def __init__(
        self,
        recipe: Recipe,
        source: ImageSource,
        store: LabelStore | None,
        student: DenseModel,
        settings: Preprocessing,
        ranks: Ranks,
    ) -> None:
        size = settings.image_size
        supervision, augment = recipe.supervision, recipe.augment
        targets = None
        if store is not None:
            assert isinstance(supervision, AnnotatedMethod)
            targets = Targets(
                labels=store,
                grid=student.grid(size),
                kind=supervision.target_kind,
                smoothing=supervision.smoothing,
                erased_tokens_train=augment.erased_tokens_train,
            )
        self.passes = accumulation(recipe, ranks.count)
        self.loader: Loader[Batch] = train_loader(
            source,
            Augmentation(
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
            ),
            image_size=size,
            batch_size=recipe.schedule.batch_size // ranks.count // self.passes,
            targets=targets,
            seed=recipe.seed,
            repeats=augment.repeats,
            workers=_workers(recipe),
            rank=ranks.rank,
            world=ranks.count,
            pin_memory=ranks.device.type == "cuda",
        )
        self.updates_per_epoch = len(self.loader) // self.passes

    def epoch(self, epoch: int, start: int) -> Iterator[list[Batch]]:
        batches = self.loader.epoch(epoch, start * self.passes)
        for _ in range(start, self.updates_per_epoch):
            yield [next(batches) for _ in range(self.passes)]


# -- what a recipe must fulfil, and what follows from it ------------------------------------------


def _check(recipe: Recipe, annotator: object) -> None:
    supervision = recipe.supervision
    if not recipe.data.train:
        raise InputError("data.train is empty: name the folder of the training images")
    if supervision.needs == "annotator" and annotator is None:
        raise InputError("supervision.online needs an annotator")
    if supervision.needs == "store" and not recipe.data.labels:
        raise InputError(
            f"supervision {supervision.kind!r} needs data.labels, a store made by `tokenlabel"
            " annotate`, or supervision.kind=labels"
        )
    supervision.check(recipe.total_epochs)
    if recipe.schedule.warmup_epochs >= recipe.schedule.epochs:
        raise InputError(
            f"schedule.warmup_epochs = {recipe.schedule.warmup_epochs} leaves nothing of"
            f" {recipe.schedule.epochs} epochs to train at the full rate"
        )


def _fitted(recipe: Recipe, store: LabelStore) -> Recipe:
    """The recipe with what the form of the labels decides, which is said where it matters."""
    first = next(iter(store.keys()), None)
    if first is None:
        return recipe
    supervision = recipe.supervision.fitted(store[first])
    if remark := supervision.remark(store[first]):
        console.print(remark, soft_wrap=True)
    return dataclasses.replace(recipe, supervision=supervision)


def _num_classes(recipe: Recipe, source: ImageSource) -> int:
    if len(source) < recipe.schedule.batch_size:
        raise InputError(
            f"{len(source)} images do not fill one batch of {recipe.schedule.batch_size}:"
            " choose a smaller schedule.batch_size"
        )
    found, wanted = len(source.class_names), recipe.model.num_classes
    if wanted not in (None, found):
        raise InputError(
            f"model.num_classes is {wanted}, but {recipe.data.train} has {found} classes"
        )
    return found


def _image_size(recipe: Recipe) -> tuple[int, int]:
    size = recipe.model.image_size
    return (size, size) if isinstance(size, int) else size


def _leave_cores_to_loaders(recipe: Recipe, ranks: Ranks) -> None:
    """On a CPU, a thread that shares its core with a loader makes all others wait for it."""
    if ranks.device.type == "cpu":
        own = (os.cpu_count() or 1) // ranks.count - _workers(recipe)
        torch.set_num_threads(max(1, min(torch.get_num_threads(), own)))


def _workers(recipe: Recipe) -> int:
    """No more than there are processors for: more only get into each other's way."""
    return min(recipe.data.workers, os.cpu_count() or 1)


def _preprocessing(recipe: Recipe, student: DenseModel) -> Preprocessing:
    """What the student is shown at the end and by validation; its normalization holds for all."""
    return dataclasses.replace(
        Preprocessing.of_timm(student.backbone),
        image_size=_image_size(recipe),
        crop_pct=recipe.augment.crop_pct,
        interpolation="bicubic",
        fit="crop",
    )


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


def _validation(
    recipe: Recipe,
    held_out: ImageSource | None,
    settings: Preprocessing,
    task: TokenLabelingTask,
    ranks: Ranks,
) -> Validation | None:
    if held_out is None:
        return None
    loader = eval_loader(
        held_out,
        settings,
        batch_size=min(recipe.engine.device_batch, 256),
        workers=_workers(recipe),
        rank=ranks.rank,
        world=ranks.count,
        pin_memory=ranks.device.type == "cuda",
    )

    def measure(model: nn.Module) -> dict[str, float]:
        return validate(model, task, loader, ranks)

    return measure
