"""`teach`: fine-tune a timm classifier on a folder of images, to annotate that folder with it."""

from __future__ import annotations

import filecmp
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.models import save_for_hf
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.loader import eval_loader
from tokenlabel.data.rules import DecodeRules
from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import DECODE
from tokenlabel.files import replacing
from tokenlabel.progress import first_process
from tokenlabel.runs.open import TAUGHT_RUN, open_run
from tokenlabel.text import read_json
from tokenlabel.training.callbacks import Callback
from tokenlabel.training.classifier import ClassifierSpec, trained
from tokenlabel.training.engine import fit
from tokenlabel.training.teach_recipe import TeachRecipe

__all__ = ["Taught", "best_temperature", "teach"]


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
    something else or a model of other images.
    """
    folder = Path(output)
    begun = (folder / TAUGHT_RUN / "recipe.yaml").is_file()
    if folder.is_dir() and not begun and {path.name for path in folder.iterdir()} - {TAUGHT_RUN}:
        raise InputError(f"{folder} is not empty: remove it, or choose another output folder")
    spec = ClassifierSpec(recipe)
    done = fit(
        spec.recipe, spec, folder / TAUGHT_RUN, callbacks=callbacks, allow_changed=allow_changed
    )
    kind = "val" if recipe.ema.decay is None else "ema"
    taught = Taught(
        folder,
        done.results["measures"].get(f"{kind}/top1"),
        0 if spec.held_out is None else len(spec.held_out),
        len(spec.source),
        dict(spec.source.found.left_out),
    )
    if first_process():
        _export(done.folder / done.results["checkpoint"], taught, spec.held_out)
    return taught


def _export(checkpoint: Path, taught: Taught, held_out: ImageSource | None) -> None:
    """Write a run's checkpoint as timm does, beside the run; config.json last, a sign of success."""
    run = open_run(checkpoint, TeachRecipe)
    network, settings = trained(run)
    folder = taught.folder
    config: dict[str, Any] = {"label_names": list(run.class_names)}
    if taught.accuracy is not None:
        config["held_out"] = {"top1": taught.accuracy, "images": taught.held_out}
    rules = DecodeRules.of_dict(run.facts.get(DECODE, {}))
    if not rules.usual:
        config[DECODE] = rules.as_dict()
    if run.recipe.temperature:
        assert held_out is not None
        config["checkpoint"] = checkpoint.name
        config["temperature"] = _temperature(folder, checkpoint.name, network, settings, held_out)
        divide_logits(network, config["temperature"])
    aside = folder / ".writing"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        save_for_hf(
            network,
            str(aside),
            model_config=config,
            safe_serialization=True,
            data_config=settings.for_timm(),
        )
        for name in ("model.safetensors", "config.json"):
            if (folder / name).is_file() and filecmp.cmp(aside / name, folder / name, False):
                continue  # a finished run that is asked for again changes nothing
            with replacing(folder / name) as file:
                shutil.copyfile(aside / name, file)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


# -- temperature -----------------------------------------------------------------------------------


def _temperature(
    folder: Path,
    checkpoint: str,
    network: nn.Module,
    settings: Preprocessing,
    held_out: ImageSource,
) -> float:
    """The one that was found before for this checkpoint, or the best for the held-out images."""
    if (folder / "config.json").is_file():
        known = read_json(folder / "config.json", kind=dict)
        if known.get("checkpoint") == checkpoint:
            return float(known["temperature"])
    logits, labels = [], []
    with torch.inference_mode():
        for batch in eval_loader(held_out, settings, batch_size=64, workers=0):
            logits.append(network(settings.normalize(batch.images)).float())
            labels.append(batch.accepted[:, 0])
    return best_temperature(torch.cat(logits), torch.cat(labels))


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T, from 1/16 to 16, at which logits / T [N, C] explain labels [N] best.

    Guo et al. 2017, arXiv 1706.04599. The loss is convex in 1 / T: its slope is bisected.
    """
    low, high = 1 / 16, 16.0
    logits = logits.double()
    for _ in range(60):
        middle = math.sqrt(low * high)
        inverse = torch.tensor(1 / middle, dtype=torch.float64, requires_grad=True)
        loss = F.cross_entropy(logits * inverse, labels)
        (slope,) = torch.autograd.grad(loss, inverse)
        low, high = (low, middle) if slope < 0 else (middle, high)
    return round(math.sqrt(low * high), 6)


def divide_logits(network: Any, temperature: float) -> None:
    """Put a temperature into the weights of a classifier's last layer."""
    head = network.get_classifier()
    with torch.no_grad():
        for parameter in (head.weight, head.bias):
            if parameter is not None:
                parameter.div_(temperature)
