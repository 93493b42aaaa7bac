"""`teach`: fine-tune a timm classifier on a folder of images, to annotate that folder with it."""

from __future__ import annotations

import dataclasses
import filecmp
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from timm.layers import to_2tuple
from timm.models import save_for_hf
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.data.augment import Augmentation
from tokenlabel.data.batch import Batch
from tokenlabel.data.inputs import Normalize, Preprocessing
from tokenlabel.data.loader import train_loader
from tokenlabel.data.open import HOLDOUT_SEED, announce, holdout, open_images
from tokenlabel.data.source import require_labels
from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import class_titles
from tokenlabel.evaluation.evaluator import Judged, evaluate_classifier
from tokenlabel.files import replacing
from tokenlabel.models import build_model, load_weights
from tokenlabel.output import DenseOutput
from tokenlabel.pictures.answers import Answered, answer_sheet
from tokenlabel.progress import first_process
from tokenlabel.runs.open import Run, open_run, saved_weights
from tokenlabel.training.batches import (
    LoaderBatches,
    held_out_batches,
    image_facts,
    update_batches,
)
from tokenlabel.training.callbacks import Callback
from tokenlabel.training.engine import fit
from tokenlabel.training.loop import Validation
from tokenlabel.training.ranks import Ranks
from tokenlabel.training.sheets import first_samples
from tokenlabel.training.teach_recipe import TeachRecipe

__all__ = ["ClassifierSpec", "Taught", "teach"]

_RUN = "run"  # in a taught model's folder: the folder of its run


@dataclass(frozen=True)
class Taught:
    """A taught classifier: a folder that timm reads, and `annotate --model` takes."""

    folder: Path
    accuracy: float | None
    """Top-1 in [0, 1] on images that were held out; None where none were."""
    held_out: int
    images: int
    """How many it was trained on."""
    left_out: dict[str, int]
    """Images that could not be used, by reason."""


def teach(
    recipe: TeachRecipe,
    output: str | Path,
    *,
    callbacks: Iterable[Callback] = (),
    allow_changed: Iterable[str] = (),
) -> Taught:
    """Write a classifier of the images' classes to `output`, as timm reads and writes models.

    Its run lies in `output`/run: stopped or killed, the same call goes on, and a finished one returns
    its result. Raises InputError where the model or the data cannot be used, and where `output` holds
    something else.
    """
    folder = Path(output)
    begun = (folder / _RUN / "recipe.yaml").is_file()
    if folder.is_dir() and not begun and {path.name for path in folder.iterdir()} - {_RUN}:
        raise InputError(f"{folder} is not empty: remove it, or choose another output folder")
    spec = ClassifierSpec(recipe)
    done = fit(spec.recipe, spec, folder / _RUN, callbacks=callbacks, allow_changed=allow_changed)
    if first_process():
        _export(done.folder / done.results["checkpoint"], folder)
    kind = "val" if recipe.ema.decay is None else "ema"
    return Taught(
        folder,
        done.results["measures"].get(f"{kind}/top1"),
        0 if spec.held_out is None else len(spec.held_out),
        len(spec.source),
        dict(spec.source.found.left_out),
    )


class ClassifierSpec:
    """A timm classifier of labeled images. `recipe` is as given, with what the images decide."""

    def __init__(self, recipe: TeachRecipe) -> None:
        """Opens the images. Raises InputError where they are too few."""
        data = recipe.data
        if not data.train:
            raise InputError("data.train is empty: name the folder of the images")
        source = require_labels(open_images(data.train, data.train_split, "train"), data.train)
        self.held_out = None
        if data.holdout:
            source, self.held_out = holdout(source, data.holdout, HOLDOUT_SEED)
        if len(source) < 2:
            raise InputError(f"{len(source)} images are too few to teach a classifier")
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
            self.recipe,
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
                (Judged(batch.images, batch.labels[:, None]) for batch in loader),
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
        network, settings = _trained(open_run(run, TeachRecipe))

        def answer(images: Tensor) -> Answered:
            return Answered(network(settings.normalize(images)), None)

        titles = class_titles(self.source.class_names)
        return answer_sheet(answer, settings, self.held_out, titles)


class ClassifierTask(nn.Module):
    """The loss of a classifier (images [B, 3, H, W] to logits [B, C]) on the images' classes."""

    def __init__(self, student: nn.Module, settings: Preprocessing, recipe: TeachRecipe) -> None:
        super().__init__()
        self.student = student
        self.loss, self.smoothing = recipe.loss, recipe.smoothing
        self.normalize = Normalize(settings.mean, settings.std)

    def forward(self, batch: Batch, _step: object = None) -> dict[str, Tensor]:
        logits = self.student(self.normalize(batch.images)).float()
        if self.loss == "mse":
            truth = F.one_hot(batch.labels, logits.shape[1])
            return {"loss": (logits.softmax(1) - truth).square().sum(1).mean()}
        return {"loss": F.cross_entropy(logits, batch.labels, label_smoothing=self.smoothing)}


def _network(recipe: TeachRecipe, num_classes: int, *, fresh: bool = False) -> nn.Module:
    """The recipe's model; `fresh` gives it the weights that training starts from."""
    model = recipe.model
    network = build_model(
        model.name,
        num_classes=num_classes,
        img_size=model.image_size,
        pretrained=fresh and model.pretrained and model.weights is None,
        **model.kwargs,
    )
    if fresh and model.weights is not None:
        load_weights(network, saved_weights(model.weights))
    return network


def _settings(recipe: TeachRecipe, network: nn.Module) -> Preprocessing:
    """How the taught model is shown images, measured and annotates: the whole of them, squashed."""
    settings = Preprocessing.of_timm(network, use_test_size=False).fitted("squash")
    size = recipe.model.image_size
    return settings if size is None else dataclasses.replace(settings, image_size=to_2tuple(size))


def _trained(run: Run[TeachRecipe]) -> tuple[nn.Module, Preprocessing]:
    """A run's model, in evaluation mode, and how it is shown images."""
    network = _network(run.recipe, len(run.class_names))
    network.load_state_dict(load_file(run.weights()))
    return network.eval(), _settings(run.recipe, network)


def _export(checkpoint: Path, folder: Path) -> None:
    """Write a run's checkpoint as timm does, beside the run; config.json last, a sign of success."""
    run = open_run(checkpoint, TeachRecipe)
    network, settings = _trained(run)
    aside = folder / ".writing"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        save_for_hf(
            network,
            str(aside),
            model_config={"label_names": list(run.class_names)},
            safe_serialization=True,
            data_config={
                "input_size": (3, *settings.image_size),
                "crop_pct": settings.crop_pct,
                "crop_mode": "squash",
                "interpolation": settings.interpolation,
                "mean": settings.mean,
                "std": settings.std,
            },
        )
        for name in ("model.safetensors", "config.json"):
            if (folder / name).is_file() and filecmp.cmp(aside / name, folder / name, False):
                continue  # a finished run that is asked for again changes nothing
            with replacing(folder / name) as file:
                shutil.copyfile(aside / name, file)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
