"""`Classifier`: a trained model with all it takes to show it an image and read its answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
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
from tokenlabel.models import DenseModel
from tokenlabel.models.arithmetic import autocast, chosen_arithmetic
from tokenlabel.output import TOKEN_SHARE, DenseOutput
from tokenlabel.runs.open import Run
from tokenlabel.runs.recipe import Recipe
from tokenlabel.supervision import RULES, Rule

__all__ = [
    "DECODE",
    "MULTI_LABEL",
    "RULE",
    "Classifier",
    "class_titles",
    "default_names",
    "without_classes",
]

RULE = "rule"
"""In what a model is exported as: the rule by which it predicts, where it has several."""

DECODE = "decode"
"""In a timm folder's configuration: how the training images became pixels, where they were not RGB of
8 bits (`DecodeRules`)."""

MULTI_LABEL = "multi_label"
"""In a timm folder's configuration: whether an image may have several classes."""


@dataclass(frozen=True)
class Classifier:
    """A model, how its images are preprocessed, and the names of its classes.

    `facts` say where it comes from: "model", "checkpoint", the recorded "rule", and of a run "weights"
    ("ema" or "model"), "step" (its update) and "damaged" (the checkpoints that were passed over).
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
        return RULES if self.has_tokens and not self.multi_label else ("class",)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes, each with a probability of its own."""
        if self.run is not None:
            return self.run.recipe.model.multi_label
        return bool(self.facts.get(MULTI_LABEL, False))

    @property
    def rule(self) -> Rule:
        """The rule of the headline: the one that was recorded with the weights, by the validation
        images of their training; of weights without a record the published one of their method."""
        recorded = self.facts.get(RULE)
        if recorded in self.rules:
            return cast(Rule, recorded)
        if self.run is not None and not self.multi_label:
            return self.run.recipe.supervision.rules_of(self.model.tokens_name_classes)[0]
        return self.rules[-1]

    @property
    def vocabulary(self) -> str | None:
        """sha256 of the visual words that its run taught its tokens, "" where they learned classes;
        None where no run recorded it. Of several label stores it is that of the first."""
        labels = None if self.run is None else self.run.facts.get("labels")
        recorded: str | list[str] | None = (labels or {}).get("vocabulary_sha256")
        return recorded[0] if isinstance(recorded, list) else recorded

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
            raise without_classes(self.facts["checkpoint"])

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


def without_classes(where: object) -> InputError:
    """What is said of a model that can name no class."""
    return InputError(
        f"{where} was trained without classes and names none: train it further on images of class"
        " folders (--weights), and use that; or label images with words of its features (annotate words)"
    )
