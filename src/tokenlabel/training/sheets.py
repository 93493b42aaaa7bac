"""The pictures that a run leaves: what it began with, and what its model answers in the end."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tokenlabel.data.loader import Loader
from tokenlabel.data.resident import ResidentSamples
from tokenlabel.data.samples import Samples
from tokenlabel.evaluation.classifier import class_titles
from tokenlabel.files import replacing
from tokenlabel.pictures.contact_sheet import contact_sheet
from tokenlabel.training.callbacks import Callback

if TYPE_CHECKING:
    from tokenlabel.runs.recipe import BaseRecipe
    from tokenlabel.training.engine import TaskSpec

__all__ = ["SHEET", "Sheets", "first_samples", "save_sheet"]


SHEET = 8  # samples of a run's sheet


class Sheets(Callback):
    """Writes first-batch.jpg when a run begins, and answers.jpg when it is complete."""

    def __init__(self, spec: TaskSpec, folder: Path) -> None:
        self._spec, self._folder = spec, folder

    def on_start(self, recipe: BaseRecipe, updates: int, done: int) -> None:  # noqa: ARG002
        if not done:
            save_sheet(self._spec.first_batch(), self._folder / "first-batch.jpg")

    def on_end(self, results: Mapping[str, Any]) -> None:  # noqa: ARG002
        picture = self._spec.answers(self._folder)
        if picture is not None:
            save_sheet(picture, self._folder / "answers.jpg")


def first_samples(
    loader: Loader[Any],
    class_names: Sequence[str],
    epoch: int = 0,
    count: int = SHEET,
) -> Image.Image:
    """The first samples of an epoch, made again beside the loader, which is left as it is."""
    samples, order = loader.samples, copy.copy(loader.order)
    if isinstance(samples, ResidentSamples):
        samples = samples.samples
    assert isinstance(samples, Samples)  # what `train_loader` makes
    order.epoch, order.start = epoch, 0
    requests = [*islice(chain.from_iterable(order), count)]
    return contact_sheet(samples, requests, class_titles(class_names))


def save_sheet(picture: Image.Image, file: Path) -> None:
    """Write a sheet in the format of the file's suffix (.jpg, .png ...), PNG where that is none."""
    kind = Image.registered_extensions().get(file.suffix.lower(), "PNG")
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as aside:
        picture.save(aside, format=kind, quality=90)
