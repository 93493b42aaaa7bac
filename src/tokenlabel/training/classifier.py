"""`teach`: fine-tune a timm classifier on a folder of images, to annotate that folder with it."""

from __future__ import annotations

import dataclasses
import filecmp
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pydantic
import torch
from PIL import Image
from pydantic import Field
from safetensors.torch import load_file
from timm.layers import to_2tuple
from timm.models import save_for_hf
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.choices import Cache
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
from tokenlabel.models import build_model
from tokenlabel.options import STRICT, Count, Share
from tokenlabel.output import DenseOutput
from tokenlabel.pictures.answers import Answered, answer_sheet
from tokenlabel.progress import first_process
from tokenlabel.runs.open import Run, open_run
from tokenlabel.runs.recipe import BaseRecipe, Ema, Engine, Optimizer, Schedule
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

__all__ = ["ClassifierSpec", "TeachData", "TeachModel", "TeachRecipe", "Taught", "teach"]

_RUN = "run"  # in a taught model's folder: the folder of its run


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class TeachData:
    train: str = ""
    """Images with classes, wherever `open_images` finds them."""
    train_split: str | None = None
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of each class's images that is not trained on and tells the accuracy."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Loader processes per rank. Never changes the result."""
    cache: Cache = "none"
    """Whether decoded images are kept, as in `tokenlabel.runs.recipe.Data`."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class TeachModel:
    name: str = "resnet50"
    image_size: Count | None = None
    """Side in pixels; None takes the model's own training size."""
    pretrained: bool = True
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the timm model."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class TeachRecipe(BaseRecipe):
    """One classifier, to annotate with."""

    name: str = "teach"
    data: TeachData = TeachData()
    model: TeachModel = TeachModel()
    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.35
    """Least area of the random crops, as a share of the image: it learns to name parts."""
    hflip: Share = 0.5
    smoothing: Share = 0.1
    optimizer: Optimizer = Optimizer(lr=1e-3)
    schedule: Schedule = Schedule(
        batch_size=64, epochs=20, warmup_epochs=1, cooldown_epochs=0, warmup_lr=1e-5, min_lr=0.0
    )
    ema: Ema = Ema(decay=None)
    engine: Engine = Engine(device_batch=64, channels_last=True)
    trackers: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        return {"model": self.model.name}


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
        self.recipe = dataclasses.replace(
            recipe, schedule=dataclasses.replace(recipe.schedule, batch_size=batch)
        )

    def build(self, ranks: Ranks) -> nn.Module:  # noqa: ARG002
        torch.manual_seed(self.recipe.seed)
        network = _network(self.recipe, len(self.source.class_names), fresh=True)
        self.settings = _settings(self.recipe, network)
        return ClassifierTask(network, self.settings, self.recipe.smoothing)

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
    """Cross-entropy of a classifier (images [B, 3, H, W] to logits [B, C]) on the images' classes."""

    def __init__(self, student: nn.Module, settings: Preprocessing, smoothing: float) -> None:
        super().__init__()
        self.student = student
        self.smoothing = smoothing
        self.normalize = Normalize(settings.mean, settings.std)

    def forward(self, batch: Batch, _step: object = None) -> dict[str, Tensor]:
        logits = self.student(self.normalize(batch.images)).float()
        return {"loss": F.cross_entropy(logits, batch.labels, label_smoothing=self.smoothing)}


def _network(recipe: TeachRecipe, num_classes: int, *, fresh: bool = False) -> nn.Module:
    """The recipe's model; `fresh` gives it the weights that training starts from."""
    model = recipe.model
    return build_model(
        model.name,
        num_classes=num_classes,
        img_size=model.image_size,
        pretrained=fresh and model.pretrained,
        **model.kwargs,
    )


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
