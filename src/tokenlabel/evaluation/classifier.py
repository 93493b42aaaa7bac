"""`Classifier`: a trained model with all it takes to show it an image and read its answer."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import timm
import torch
import yaml
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import get_pretrained_cfg
from torch import Tensor

from tokenlabel.errors import InputError
from tokenlabel.evaluation.metrics import predictions
from tokenlabel.evaluation.preprocessing import Preprocessing
from tokenlabel.models import DenseModel, create_model
from tokenlabel.models.checkpoints import load_weights, read_state_dict
from tokenlabel.output import DenseOutput

__all__ = ["Classifier", "Weights", "load_classifier"]

Weights = Literal["auto", "ema", "model"]


@dataclass(frozen=True)
class Classifier:
    """A model, how it wants its images, and the names of its classes.

    `facts` say where it comes from: "model", "checkpoint", "recipe" (plain values), "published".
    """

    model: DenseModel
    preprocessing: Preprocessing
    class_names: tuple[str, ...]  # folder names, ImageNet ids, or numbers where neither is known
    has_tokens: bool  # whether its tokens were taught, so that their scores mean something
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    def output(self, images: Tensor) -> DenseOutput:
        """Class and token scores of images uint8 [B, 3, h, w]."""
        result: DenseOutput = self.model(self.preprocessing.normalize(images))
        return DenseOutput(result.logits.float(), result.tokens.float())

    def scores(self, images: Tensor, token_weight: float = 0.5) -> dict[str, Tensor]:
        """Class scores [B, C] by each rule that the model has: "class", "token", "fused"."""
        output = self.output(images)
        if not self.has_tokens:
            return {"class": output.logits}
        return predictions(output, token_weight)

    def titles(self) -> tuple[str, ...]:
        """Class names for people: "tench" where the class is ImageNet's n01440764."""
        info = _imagenet(self.num_classes)
        if info is None or tuple(info.label_names()) != self.class_names:
            return self.class_names
        return tuple(str(title).split(",")[0] for title in info.label_descriptions())


def load_classifier(
    checkpoint: str | Path | None = None,
    model: str | None = None,
    *,
    weights: Weights = "auto",
    image_size: int | tuple[int, int] | None = None,
    crop_pct: float | None = None,
) -> Classifier:
    """A trained model, ready to judge images.

    - `checkpoint` alone: a run's folder (its best checkpoint) or one `step-…` folder in it. `weights`
      chooses between the trained ones and their moving average ("auto": the average, if kept).
    - `checkpoint` and `model`: a file of weights, and the timm name of what they belong to.
    - `model` alone: timm's own pretrained weights.

    `image_size` and `crop_pct` replace the checkpoint's settings. Raises InputError when something
    is missing or does not fit.
    """
    if checkpoint is None and model is None:
        raise InputError("nothing to load: give a checkpoint, or the name of a timm model")
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if checkpoint is not None and Path(checkpoint).is_dir():
        found = _of_run(Path(checkpoint), weights, size)
    elif checkpoint is not None:
        if model is None:
            raise InputError(f"{checkpoint}: say which timm model these weights are of")
        found = _of_file(checkpoint, model, size)
    else:
        assert model is not None
        found = _of_timm(model, size)
    found.model.eval().requires_grad_(False)
    changes: dict[str, Any] = {} if crop_pct is None else {"crop_pct": crop_pct}
    if size is not None:
        changes["image_size"] = size
    return dataclasses.replace(
        found, preprocessing=dataclasses.replace(found.preprocessing, **changes)
    )


# -- the three kinds -----------------------------------------------------------------------------


def _of_run(folder: Path, weights: Weights, size: tuple[int, int] | None) -> Classifier:
    run, step = _locate(folder)
    recipe: dict[str, Any] = yaml.safe_load((run / "recipe.yaml").read_text())
    environment = json.loads((run / "environment.json").read_text())
    names = ("ema", "model") if weights == "auto" else (weights,)
    file = next((f for n in names if (f := step / f"{n}.safetensors").exists()), None)
    if file is None:
        raise InputError(f"{step} holds no {names[0]}.safetensors: use other weights")
    spec = recipe["model"]
    own = spec["image_size"]
    own_size: tuple[int, int] = (own, own) if isinstance(own, int) else tuple(own)
    student = _create(spec["name"], _count_classes(spec["name"], file), size or own_size, spec)
    load_weights(student, file)
    preprocessing = dataclasses.replace(
        Preprocessing.of_timm(student.backbone),
        image_size=own_size,
        crop_pct=recipe["augment"]["crop_pct"],
        crop_mode="center",
    )
    taught = recipe["supervision"]["kind"] == "token-labels" or student.heads == "tokens"
    return Classifier(
        student,
        preprocessing,
        tuple(environment.get("class_names") or _default_names(student.num_classes)),
        has_tokens=taught and student.heads != "class",
        facts={
            "model": spec["name"],
            "checkpoint": str(file),
            "run": str(run),
            "recipe": recipe,
            "published": recipe["about"]["accuracy"],
        },
    )


def _of_file(checkpoint: str | Path, name: str, size: tuple[int, int] | None) -> Classifier:
    if not Path(checkpoint).is_file():
        raise InputError(f"no checkpoint at {checkpoint}: give a run's folder or a file of weights")
    student = _create(name, _count_classes(name, checkpoint), size)
    unfilled = load_weights(student, checkpoint)
    return _timm_classifier(student, name, str(checkpoint), token_head="aux_head" not in unfilled)


def _of_timm(name: str, size: tuple[int, int] | None) -> Classifier:
    try:
        backbone = _create(name, None, size, pretrained=True)
    except RuntimeError as error:  # timm's word for an architecture that has no weights
        raise InputError(f"{name}: {error}; give a checkpoint") from None
    except OSError as error:
        raise InputError(f"cannot get the weights of {name}: {error}") from None
    return _timm_classifier(backbone, name, "timm", token_head=True)


def _timm_classifier(student: DenseModel, name: str, origin: str, token_head: bool) -> Classifier:
    return Classifier(
        student,
        Preprocessing.of_timm(student.backbone),
        _default_names(student.num_classes),
        has_tokens=student.heads != "class" and token_head,
        facts={"model": name, "checkpoint": origin},
    )


# -- what they share -----------------------------------------------------------------------------


def _locate(folder: Path) -> tuple[Path, Path]:
    """A run's folder and one of its checkpoints: the given one, the best, or the newest."""
    if (folder / "progress.json").exists():
        return folder.parent.parent, folder
    if not (folder / "recipe.yaml").exists():
        raise InputError(f"{folder} is no run: it holds no recipe.yaml")
    checkpoints = folder / "checkpoints"
    pointer = checkpoints / "best"
    steps = sorted(checkpoints.glob("step-*"))
    if pointer.exists():
        return folder, checkpoints / pointer.read_text().strip()
    if not steps:
        raise InputError(f"{folder} has no checkpoint yet: let the run go on")
    return folder, steps[-1]


def _create(
    name: str,
    num_classes: int | None,
    size: tuple[int, int] | None,
    spec: dict[str, Any] | None = None,
    *,
    pretrained: bool = False,
) -> DenseModel:
    arguments: dict[str, Any] = dict(spec["kwargs"]) if spec else {}
    if num_classes is None:
        num_classes = get_pretrained_cfg(name).num_classes if timm.is_model(name) else 1000
    student = create_model(
        name, num_classes, img_size=size, heads="class+tokens", pretrained=pretrained, **arguments
    )
    return student


def _count_classes(name: str, file: str | Path) -> int:
    """The classes of a file of weights: rows of its token head, else of its classifier."""
    config = get_pretrained_cfg(name)
    classifier = () if config is None else config.classifier or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    state = read_state_dict(file)
    for head in ("aux_head", *heads):
        for key in (f"{head}.weight", f"backbone.{head}.weight"):
            if key in state:
                return state[key].shape[0]
    raise InputError(f"{file} holds no classifier of {name} ({', '.join(heads)})")


def _default_names(num_classes: int) -> tuple[str, ...]:
    """ImageNet's ids where the class count is that of one of its subsets, else numbers."""
    info = _imagenet(num_classes)
    return tuple(map(str, range(num_classes) if info is None else info.label_names()))


def _imagenet(num_classes: int) -> ImageNetInfo | None:
    subset = infer_imagenet_subset({"num_classes": num_classes})
    return None if subset is None else ImageNetInfo(subset)
