"""Classifiers of labeled images, as specs of the engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from safetensors.torch import load_file
from timm.layers import to_2tuple
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.data.augment import Augmentation
from tokenlabel.data.batch import Batch
from tokenlabel.data.channels import of_channels
from tokenlabel.data.folds import folds_of
from tokenlabel.data.inputs import Normalize, Preprocessing
from tokenlabel.data.loader import train_loader
from tokenlabel.data.open import HOLDOUT_SEED, announce, holdout, open_images
from tokenlabel.data.source import ImageSource, Subset, require_classes
from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import class_titles
from tokenlabel.evaluation.evaluator import Judged, evaluate_classifier
from tokenlabel.models import build_model, load_weights
from tokenlabel.output import DenseOutput
from tokenlabel.pictures.answers import Answered, answer_sheet
from tokenlabel.runs.open import Run, open_run, saved_weights
from tokenlabel.supervision import multi_hot
from tokenlabel.training.batches import (
    LoaderBatches,
    held_out_batches,
    image_facts,
    update_batches,
)
from tokenlabel.training.images import hold_out
from tokenlabel.training.loop import Validation
from tokenlabel.training.ranks import Ranks
from tokenlabel.training.sheets import first_samples
from tokenlabel.training.teach_recipe import TeachData, TeachRecipe

__all__ = ["ClassifierSpec", "classifier_loss", "trained"]


class ClassifierSpec:
    """A timm classifier of labeled images. `recipe` is as given, with what the images decide."""

    def __init__(self, recipe: TeachRecipe) -> None:
        """Opens the images. Raises InputError where they are too few."""
        data = recipe.data
        if not data.train:
            raise InputError("data.train is empty: name the folder of the images")
        source = require_classes(open_images(data.train, data.train_split, "train"), data.train)
        source = of_channels(source, recipe.model.in_chans, data.channels)
        self.held_out: ImageSource | None = None
        if data.folds > 1:
            source, self.held_out = _without_fold(source, data)
        elif data.holdout:
            source, self.held_out = hold_out(source, data.holdout, data.train)
        if len(source) < 2:
            raise InputError(f"{len(source)} images are too few to teach a classifier")
        if recipe.temperature and self.held_out is None:
            raise InputError(
                "a temperature needs images that were held out: give a holdout above 0"
            )
        self.source = source
        announce(source, data.train)
        batch = min(recipe.schedule.batch_size, len(source))
        schedule = dataclasses.replace(recipe.schedule, batch_size=batch)
        if recipe.stop_epoch is not None:
            updates = recipe.stop_epoch * (len(source) // batch)
            schedule = dataclasses.replace(schedule, max_steps=updates)
        self.recipe = dataclasses.replace(recipe, schedule=schedule)

    def build(self, ranks: Ranks) -> nn.Module:  # noqa: ARG002
        torch.manual_seed(self.recipe.seed)
        network = _network(self.recipe, len(self.source.class_names), fresh=True)
        if self.recipe.temperature and not isinstance(_last_layer(network), nn.Linear | nn.Conv2d):
            raise InputError(
                f"{self.recipe.model.name} has no last layer that a temperature could divide"
            )
        self.settings = _settings(self.recipe, network)
        return ClassifierTask(network, self.settings, self.recipe)

    def batches(self, ranks: Ranks) -> LoaderBatches[Batch]:
        recipe, settings = self.recipe, self.settings
        batches = update_batches(
            train_loader,
            self.source,
            Augmentation(
                scale=(recipe.min_scale, 1.0),
                hflip=recipe.hflip,
                policy=None,
                erasing=0.0,
                interpolation="random",
                mean=settings.mean,
                std=settings.std,
            ),
            image_size=settings.image_size,
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

        def measure(network: nn.Module) -> dict[str, float]:
            def predict(images: Tensor) -> DenseOutput:
                with ranks.autocast():
                    logits = network(self.settings.normalize(images))
                return DenseOutput(logits, logits[:, None, None])

            network.eval()
            counts = evaluate_classifier(
                predict,
                (Judged(batch.images, batch.accepted) for batch in loader),
                ("class",),
                num_classes=len(self.source.class_names),
                device=ranks.device,
                total=lambda tensor: ranks.sum(tensor.cpu()),
            )
            summary = counts["class"].summary()
            return {name: summary[name] for name in ("top1", "top5", "loss")}

        return measure

    def facts(self) -> dict[str, Any]:
        return image_facts(self.source, self.held_out)

    def first_batch(self) -> Image.Image:
        return first_samples(self.loader, self.source.class_names)

    def answers(self, run: Path) -> Image.Image | None:
        if self.held_out is None:
            return None
        network, settings = trained(open_run(run, TeachRecipe))

        def answer(images: Tensor) -> Answered:
            return Answered(network(settings.normalize(images)).softmax(1), None)

        titles = class_titles(self.source.class_names)
        return answer_sheet(answer, settings, self.held_out, titles)


class ClassifierTask(nn.Module):
    """The loss of a classifier (images [B, C, H, W] to logits [B, C]) on the images' classes."""

    def __init__(self, student: nn.Module, settings: Preprocessing, recipe: TeachRecipe) -> None:
        super().__init__()
        self.student = student
        self.loss, self.smoothing = recipe.loss, recipe.smoothing
        self.normalize = Normalize(settings.mean, settings.std)

    def forward(self, batch: Batch, _step: object = None) -> dict[str, Tensor]:
        logits = self.student(self.normalize(batch.images)).float()
        return {"loss": classifier_loss(logits, batch.labels, self.loss, self.smoothing)}


def classifier_loss(
    logits: Tensor, labels: Tensor, loss: Literal["ce", "mse"], smoothing: float
) -> Tensor:
    """Of logits [B, C] and classes [B], or [B, M] padded with -1, which share an image's mass.

    "mse" is the squared error of the probabilities.
    """
    truth = multi_hot(labels, logits.shape[1])
    truth = truth / truth.sum(1, keepdim=True)
    if loss == "mse":
        return (logits.softmax(1) - truth).square().sum(1).mean()
    target = labels if labels.ndim == 1 else truth
    return F.cross_entropy(logits, target, label_smoothing=smoothing)


def _without_fold(source: ImageSource, data: TeachData) -> tuple[ImageSource, ImageSource | None]:
    """The images outside of the recipe's fold, and some of those in it, which tell the accuracy."""
    folds = folds_of(source, data.train, data.folds, data.group)
    note = f"without those of fold {data.fold + 1} of {data.folds}"
    seen = Subset.of(source, [i for i, fold in enumerate(folds) if fold != data.fold], note)
    unseen: ImageSource = Subset.of(source, [i for i, f in enumerate(folds) if f == data.fold])
    share = data.holdout * len(source) / len(unseen)
    if share < 1:
        unseen = holdout(unseen, share, HOLDOUT_SEED)[1] if share else unseen
    return seen, unseen if data.holdout else None


def _last_layer(network: Any) -> Any:
    return network.get_classifier()


def _network(recipe: TeachRecipe, num_classes: int, *, fresh: bool = False) -> nn.Module:
    """The recipe's model; `fresh` gives it the weights that training starts from."""
    model = recipe.model
    network = build_model(
        model.name,
        num_classes=num_classes,
        img_size=model.image_size,
        pretrained=fresh and model.pretrained and model.weights is None,
        **model.arguments,
    )
    if fresh and model.weights is not None:
        load_weights(network, saved_weights(model.weights))
    return network


def _settings(recipe: TeachRecipe, network: nn.Module) -> Preprocessing:
    """How the taught model is shown images, measured and annotates: the whole of them, squashed."""
    settings = Preprocessing.of_timm(network, use_test_size=False).fitted("squash")
    settings.require_channels(recipe.model.in_chans)
    size = recipe.model.image_size
    return settings if size is None else dataclasses.replace(settings, image_size=to_2tuple(size))


def trained(run: Run[TeachRecipe]) -> tuple[nn.Module, Preprocessing]:
    """A run's model, in evaluation mode, and how it is shown images."""
    network = _network(run.recipe, len(run.class_names))
    network.load_state_dict(load_file(run.weights()))
    return network.eval(), _settings(run.recipe, network)
