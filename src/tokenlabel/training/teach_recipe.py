"""`TeachRecipe`: the training of a classifier to annotate with, as data."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from tokenlabel.choices import Cache
from tokenlabel.options import STRICT, Count, Positive, Share
from tokenlabel.runs.recipe import BaseRecipe, Ema, Engine, Optimizer, Schedule, input_arguments

__all__ = ["TeachData", "TeachModel", "TeachRecipe"]


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class TeachData:
    train: str = ""
    """Images with classes, wherever `open_images` finds them."""
    train_split: str | None = None
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of each class's images that is not trained on and tells the accuracy."""
    folds: Annotated[int, Field(ge=1, le=255)] = 1
    """Divide the images into so many folds, and train on all but one; see `tokenlabel.data.folds`. The
    images that tell the accuracy are then some of that fold's."""
    fold: Annotated[int, Field(ge=0)] = 0
    """The one that is left out."""
    group: str | None = None
    """What stays together in one fold: a column of a CSV file, or a regular expression for keys."""
    channels: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Which channels of the images the model sees, by number; None: all."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Loader processes per rank. Never changes the result."""
    cache: Cache = "auto"
    """Whether decoded images are kept, as in `tokenlabel.runs.recipe.Data`."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class TeachModel:
    name: str = "resnet50"
    image_size: Count | None = None
    """Side in pixels; None takes the model's own training size."""
    pretrained: bool = True
    in_chans: Count = 3
    """Channels of the images, and their mean and std, as in `tokenlabel.runs.recipe.Model`."""
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None
    weights: str | None = None
    """Weights to start from instead of timm's: a file, a run's folder or that of a taught model."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the timm model."""

    @property
    def arguments(self) -> dict[str, Any]:
        """What the timm model is built with, besides its size and its classes."""
        return self.kwargs | input_arguments(self.in_chans, self.mean, self.std)


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
    """Label smoothing of the cross-entropy."""
    loss: Literal["ce", "mse"] = "ce"
    """Cross-entropy, or the squared error of the probabilities, whose classifiers taught students
    better (arXiv 2407.18041)."""
    stop_epoch: Count | None = None
    """End after so many epochs of the schedule: an early classifier is less sure of the images that
    it has seen (Cho & Hariharan 2019, arXiv 1910.01348)."""
    temperature: bool = False
    """Whether the finished classifier's logits are divided by the temperature that suits the held-out
    images best."""
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
