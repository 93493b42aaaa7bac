"""`Classifier`: a trained model with all it takes to show it an image and read its answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.layers import to_2tuple
from torch import Tensor

from tokenlabel.choices import Arithmetic, Orientation
from tokenlabel.data.decode import decode_image
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.rules import AS_STORED, DecodeRules
from tokenlabel.errors import InputError
from tokenlabel.evaluation.metrics import prediction
from tokenlabel.evaluation.predictions import (
    Picture,
    Prediction,
    named_pictures,
    predict_pictures,
)
from tokenlabel.geometry.render import Pixels
from tokenlabel.models import DenseModel, build_from, create_model, load_weights
from tokenlabel.models.arithmetic import autocast, chosen_arithmetic
from tokenlabel.output import TOKEN_SHARE, DenseOutput
from tokenlabel.runs.open import Run, WhichWeights, open_run
from tokenlabel.runs.recipe import Recipe
from tokenlabel.supervision import Rule
from tokenlabel.text import read_json

__all__ = [
    "DECODE",
    "MULTI_LABEL",
    "TOKENS_TAUGHT",
    "TOKEN_HEAD_FILE",
    "Classifier",
    "class_titles",
    "default_names",
    "load_classifier",
]

TOKEN_HEAD_FILE = "token_head.safetensors"
"""In a timm folder: the token head of a student whose backbone has none of its own."""

TOKENS_TAUGHT = "tokens_taught"
"""In a timm folder's configuration: whether its token head was trained."""

DECODE = "decode"
"""In a timm folder's configuration: how the training images became pixels, where they were not RGB of
8 bits (`DecodeRules`)."""

MULTI_LABEL = "multi_label"
"""In a timm folder's configuration: whether an image may have several classes."""

_TOKEN_HEADS = ("aux_head.", "backbone.aux_head.")


@dataclass(frozen=True)
class Classifier:
    """A model, how its images are preprocessed, and the names of its classes.

    `facts` say where it comes from: "model", "checkpoint", and of a run "weights" ("ema" or "model"),
    "step" (its update) and "damaged" (the checkpoints that were passed over).
    """

    model: DenseModel
    preprocessing: Preprocessing
    class_names: tuple[str, ...]  # folder names, ImageNet ids, or numbers where neither is known
    has_tokens: bool  # whether its tokens were taught to name classes
    facts: dict[str, Any] = field(default_factory=dict)
    run: Run[Recipe] | None = None  # where it is a run's
    dtype: torch.dtype = torch.float32  # of the model's arithmetic

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of prediction that it has. Where images may have several classes, token scores,
        which compete with each other, say nothing about each."""
        return (
            ("class", "token", "fused") if self.has_tokens and not self.multi_label else ("class",)
        )

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes, each with a probability of its own."""
        if self.run is not None:
            return self.run.recipe.model.multi_label
        return bool(self.facts.get(MULTI_LABEL, False))

    @property
    def rule(self) -> Rule:
        """The rule of the headline: of a run its method's, else the published one."""
        if self.run is not None and not self.multi_label:
            return self.run.recipe.supervision.rules_of(self.model.tokens_name_classes)[0]
        return self.rules[-1]

    def in_arithmetic(self, wanted: Arithmetic, *, batch: int = 1, images: int = 1) -> Classifier:
        """The same in the `wanted` arithmetic; "auto" is what suits so many images in such batches
        on the device that the model is on: see `chosen_arithmetic`."""
        device = next(self.model.parameters()).device
        shape = (self.preprocessing.channels, *self.preprocessing.image_size)

        def step(count: int, dtype: torch.dtype) -> None:
            blank = torch.zeros(count, *shape, dtype=torch.uint8, device=device)
            dataclasses.replace(self, dtype=dtype).output(blank)

        chosen = chosen_arithmetic(wanted, device, step, batch=batch, images=images)
        return dataclasses.replace(self, dtype=chosen)

    def output(self, images: Tensor) -> DenseOutput:
        """Class and token scores of images [B, C, h, w] from 0 to 255."""
        with autocast(images.device, self.dtype):
            result: DenseOutput = self.model(self.preprocessing.normalize(images))
        return DenseOutput(result.logits.float(), result.tokens.float())

    def scores(self, images: Tensor, token_weight: float = TOKEN_SHARE) -> dict[Rule, Tensor]:
        """Class scores [B, C] by each of its `rules`, of images [B, C, h, w] from 0 to 255."""
        output = self.output(images)
        return {rule: prediction(output, rule, token_weight) for rule in self.rules}

    def titles(self) -> tuple[str, ...]:
        """Class names for people."""
        return class_titles(self.class_names)

    @property
    def orientation(self) -> Orientation:
        """Whether it was trained on images with their EXIF orientations applied."""
        return (
            self.decode_rules.orientation if self.run is None else self.run.recipe.data.orientation
        )

    @property
    def decode_rules(self) -> DecodeRules:
        """The rules by which its training images became pixels, as far as they are known."""
        known = (self.facts if self.run is None else self.run.facts).get(DECODE, {})
        return dataclasses.replace(DecodeRules.of_dict(known), channels=self.preprocessing.channels)

    def decode(self, data: bytes, name: str, found: DecodeRules = AS_STORED) -> Pixels:
        """An image file, of data with the rules `found`, as pixels [H, W, C] for it (`decode_image`)."""
        return decode_image(data, name, self.decode_rules.filled(found))

    def require_classes(self) -> None:
        """Raises InputError where it was trained without classes and can name none."""
        if self.num_classes == 0:
            raise _no_classes(self.facts["checkpoint"])

    def predict(
        self,
        images: Any,
        *,
        top: int = 5,
        threshold: float = 0.5,
        batch_size: int = 64,
        workers: int = 4,
    ) -> list[Prediction]:
        """What it says of images, by its rule, in their order: the `top` classes of each. Of a
        `multi_label` model the answer is every class whose probability reaches `threshold`.

        `images` are one or several of: paths (of files, folders, patterns or archives), Pillow
        images, uint8 arrays [H, W, C], uint8 tensors [C, H, W] or a batch of them, of the channels
        that the model takes; float32 from 0 to 255 where it was trained on more bits. An image that
        cannot be read has an `error` instead of an answer. `workers` threads read images. Raises
        InputError where there is nothing at a path, and for anything else.
        """
        pictures = named_pictures(images, self.decode_rules, self.orientation)
        options = {"top": top, "batch_size": batch_size, "workers": workers}
        return list(self.predictions(pictures, threshold=threshold, **options))

    def predictions(
        self, pictures: Iterable[Picture], *, threshold: float = 0.5, **options: Any
    ) -> Iterator[Prediction]:
        """As `predict`, one after the other; options as of `predict_pictures`."""
        names = list(zip(self.class_names, self.titles(), strict=True))
        self.require_classes()
        return predict_pictures(
            pictures,
            self.preprocessing,
            self.probabilities,
            names,
            threshold=threshold if self.multi_label else None,
            **options,
        )

    def probabilities(self, images: Tensor) -> Tensor:
        """Probabilities [B, C] by its rule, of images [B, C, h, w] from 0 to 255 on any device.

        They add up to 1, but for a `multi_label` model's.
        """
        device = next(self.model.parameters()).device
        return self.probabilities_of(self.output(images.to(device)))

    def probabilities_of(self, output: DenseOutput) -> Tensor:
        """`probabilities` of what it put out."""
        scores = prediction(output, self.rule)
        return scores.sigmoid() if self.multi_label else scores.softmax(1)


def class_titles(class_names: Sequence[str]) -> tuple[str, ...]:
    """Names for people: "tench" where all classes are ImageNet's ids (n01440764), else as they are."""
    info, smaller = ImageNetInfo("imagenet-22k"), ImageNetInfo("imagenet-1k")
    if not set(class_names) <= {*info.label_names(), *smaller.label_names()}:
        return tuple(class_names)
    return tuple(info.label_name_to_description(name).split(",")[0] for name in class_names)


def default_names(num_classes: int) -> tuple[str, ...]:
    """ImageNet's ids where the class count is that of one of its well-known sets, else numbers."""
    subset = infer_imagenet_subset({"num_classes": num_classes})
    names = range(num_classes) if subset is None else ImageNetInfo(subset).label_names()
    return tuple(map(str, names))


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
    if checkpoint is None and model is None:
        raise InputError("nothing to load: give a checkpoint, or the name of a timm model")
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
    trained_size = to_2tuple(spec.image_size)
    student = create_model(
        spec.name,
        len(class_names),
        img_size=size or trained_size,
        token_classes=spec.token_classes,
        **spec.arguments,
    )
    load_weights(student, file)
    taught = recipe.supervision.teaches_tokens or student.heads == "tokens"
    return Classifier(
        student,
        dataclasses.replace(
            Preprocessing.of_timm(student.backbone),
            image_size=trained_size,
            crop_pct=recipe.augment.crop_pct,
            interpolation="bicubic",  # this and the next as in the run's own validation
            fit="crop",
        ),
        class_names,
        has_tokens=taught and student.tokens_name_classes,
        facts={
            "model": spec.name,
            "checkpoint": str(file),
            "weights": file.stem,
            "step": int(file.parent.name.removeprefix("step-")),
            "damaged": list(run.damaged),
        },
        run=run,
    )


def _of_file(file: Path, name: str, size: tuple[int, int] | None) -> Classifier:
    if not file.is_file():
        raise InputError(f"no checkpoint at {file}: give a run's folder or a file of weights")
    student = DenseModel(build_from(file, name, size))
    unfilled = load_weights(student, file)
    taught = not any(key.startswith(_TOKEN_HEADS) for key in unfilled)
    return _timm_classifier(student, taught, {"model": name, "checkpoint": str(file)})


def _of_timm(name: str, size: tuple[int, int] | None) -> Classifier:
    student = DenseModel(name, pretrained=True, img_size=size)
    taught = student.aux_head is None  # a token head of the backbone's own
    return _timm_classifier(student, taught, {"model": name, "checkpoint": "timm"})


def _of_timm_folder(folder: Path, size: tuple[int, int] | None) -> Classifier:
    config = read_json(folder / "config.json", kind=dict)
    if config.get("num_classes") == 0:
        raise _no_classes(folder)
    found = _of_timm(f"local-dir:{folder}", size)
    head, file = found.model.aux_head, folder / TOKEN_HEAD_FILE
    if file.exists() and head is not None:
        head.load_state_dict(load_file(file))
        found = dataclasses.replace(found, has_tokens=True)
    facts = {
        "model": str(config.get("architecture")),
        "checkpoint": str(folder),
        MULTI_LABEL: bool(config.get(MULTI_LABEL, False)),
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


def _no_classes(where: object) -> InputError:
    return InputError(
        f"{where} was trained without classes and names none: train it further on images of class"
        " folders (--weights), and use that"
    )
