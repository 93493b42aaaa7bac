"""`load_classifier`: a `Classifier` from a run, a timm folder, a file of weights or a name of timm."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from timm.layers import to_2tuple

from tokenlabel.data.inputs import Preprocessing
from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import (
    DECODE,
    MULTI_LABEL,
    RULE,
    Classifier,
    default_names,
    without_classes,
)
from tokenlabel.models import DenseModel, build_from, create_model, load_weights, weights_or
from tokenlabel.runs.folds import holds_folds, member_folder
from tokenlabel.runs.open import WhichWeights, open_run
from tokenlabel.runs.recipe import Recipe
from tokenlabel.text import read_json

__all__ = ["TOKENS_TAUGHT", "TOKEN_HEAD_FILE", "load_classifier", "student_inputs"]

TOKEN_HEAD_FILE = "token_head.safetensors"
"""In a timm folder: the token head of a student whose backbone has none of its own."""

TOKENS_TAUGHT = "tokens_taught"
"""In a timm folder's configuration: whether its token head was trained."""

_TOKEN_HEADS = ("aux_head.", "backbone.aux_head.")


def load_classifier(
    checkpoint: str | Path | None = None,
    model: str | None = None,
    *,
    weights: WhichWeights = "auto",
    image_size: int | tuple[int, int] | None = None,
    crop_pct: float | None = None,
) -> Classifier:
    """A trained model, ready to judge images.

    - `checkpoint` alone: a run's folder (its best checkpoint) or one `step-…` folder in it. `weights`
      chooses between the trained ones and their moving average ("auto": the average, if kept).
      Or a folder that timm wrote, with weights and `config.json`.
    - `checkpoint` and `model`: a file of weights, and the timm name of what they belong to.
    - `model` alone: timm's own pretrained weights.

    `image_size` and `crop_pct` replace the checkpoint's settings. Raises InputError when something
    is missing or does not fit.
    """
    place = model if checkpoint is None else checkpoint
    if place is None:
        raise InputError("nothing to load: give a checkpoint, or the name of a timm model")
    if holds_folds(place):
        one = member_folder(Path(place), 0)
        raise InputError(f"{place} holds several classifiers: give one of them, such as {one}")
    size = None if image_size is None else to_2tuple(image_size)
    if checkpoint is None:
        assert model is not None
        found = _of_timm(model, size)
    elif (Path(checkpoint) / "config.json").is_file():
        found = _of_timm_folder(Path(checkpoint), size)
    elif not Path(checkpoint).exists():
        raise InputError(f"no checkpoint at {checkpoint}: give a run's folder or a file of weights")
    elif Path(checkpoint).is_dir():
        found = _of_run(Path(checkpoint), weights, size)
    elif model is None:
        raise InputError(f"{checkpoint}: say which timm model these weights are of")
    else:
        found = _of_file(Path(checkpoint), model, size)
    found.model.eval().requires_grad_(False)
    changes: dict[str, Any] = {} if crop_pct is None else {"crop_pct": crop_pct}
    if size is not None:
        changes["image_size"] = size
    return dataclasses.replace(
        found, preprocessing=dataclasses.replace(found.preprocessing, **changes)
    )


# -- the three kinds -----------------------------------------------------------------------------


def _of_run(folder: Path, weights: WhichWeights, size: tuple[int, int] | None) -> Classifier:
    run = open_run(folder)
    recipe, class_names, file = run.recipe, run.class_names, run.weights(weights)
    spec = recipe.model
    student = create_model(
        spec.name,
        len(class_names),
        img_size=size or spec.image_size,
        token_classes=spec.token_classes,
        **spec.arguments,
    )
    load_weights(student, file)
    taught = recipe.supervision.teaches_tokens or student.heads == "tokens"
    return Classifier(
        student,
        student_inputs(recipe, student),
        class_names,
        has_tokens=taught and student.tokens_name_classes,
        facts={
            "model": spec.name,
            "checkpoint": str(file),
            "weights": file.stem,
            "step": int(file.parent.name.removeprefix("step-")),
            "damaged": list(run.damaged),
            RULE: run.recorded.get(RULE),
        },
        run=run,
    )


def student_inputs(recipe: Recipe, student: DenseModel) -> Preprocessing:
    """What a run's student is shown, in the run's validation as later on."""
    return dataclasses.replace(
        Preprocessing.of_timm(student.backbone),
        image_size=to_2tuple(recipe.model.image_size),
        crop_pct=recipe.augment.crop_pct,
        interpolation="bicubic",
        fit="crop",
    )


def _of_file(file: Path, name: str, size: tuple[int, int] | None) -> Classifier:
    if not file.is_file():
        raise InputError(f"no checkpoint at {file}: give a run's folder or a file of weights")
    student = DenseModel(build_from(file, name, size))
    unfilled = load_weights(student, file)
    taught = not any(key.startswith(_TOKEN_HEADS) for key in unfilled)
    return _timm_classifier(student, taught, {"model": name, "checkpoint": str(file)})


def _of_timm(name: str, size: tuple[int, int] | None) -> Classifier:
    with weights_or("give --checkpoint FILE"):
        student = DenseModel(name, pretrained=True, img_size=size)
    taught = student.aux_head is None  # a token head of the backbone's own
    return _timm_classifier(student, taught, {"model": name, "checkpoint": "timm"})


def _of_timm_folder(folder: Path, size: tuple[int, int] | None) -> Classifier:
    config = read_json(folder / "config.json", kind=dict)
    if config.get("num_classes") == 0:
        raise without_classes(folder)
    found = _of_timm(f"local-dir:{folder}", size)
    head, file = found.model.aux_head, folder / TOKEN_HEAD_FILE
    if file.exists() and head is not None:
        head.load_state_dict(load_file(file))
        found = dataclasses.replace(found, has_tokens=True)
    facts = {
        "model": str(config.get("architecture")),
        "checkpoint": str(folder),
        MULTI_LABEL: bool(config.get(MULTI_LABEL, False)),
        RULE: config.get(RULE),
        DECODE: config.get(DECODE, {}),
    }
    # a backbone owns its token head, as LV-ViT does, also where nothing taught it
    taught = found.has_tokens and config.get(TOKENS_TAUGHT, True)
    return dataclasses.replace(found, has_tokens=taught, facts=facts)


def _timm_classifier(student: DenseModel, taught: bool, facts: dict[str, Any]) -> Classifier:
    settings = Preprocessing.of_timm(student.backbone)
    if (height_width := student.image_shape[1:]) != settings.image_size:
        settings = dataclasses.replace(settings, image_size=height_width)
    names = student.backbone.pretrained_cfg.get("label_names")
    names = tuple(names or default_names(student.num_classes))
    return Classifier(student, settings, names, taught, facts)
