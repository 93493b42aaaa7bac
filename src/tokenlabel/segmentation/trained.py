"""From a recipe to a segmentation model, and from a run's folder back to one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.rules import AS_STORED, DecodeRules
from tokenlabel.errors import InputError
from tokenlabel.models import build_model, load_weights
from tokenlabel.models.freeze import freeze_backbone
from tokenlabel.models.layout import patch_size
from tokenlabel.runs.open import open_run, saved_weights
from tokenlabel.runs.recipe_file import override
from tokenlabel.segmentation.checkpoints import load_segmentation_weights
from tokenlabel.segmentation.classes import ClassList
from tokenlabel.segmentation.inference import Inference, Segmenter
from tokenlabel.segmentation.model import SegmentationModel
from tokenlabel.segmentation.recipe import SegmentationRecipe

__all__ = [
    "TrainedSegmenter",
    "create_segmenter",
    "inference_of",
    "load_checkpoint",
    "load_segmenter",
    "normalization",
    "segmenter_of",
]


def create_segmenter(
    recipe: SegmentationRecipe, num_classes: int, *, fresh: bool = False
) -> SegmentationModel:
    """The recipe's model; `fresh` gives its backbone the weights that training starts from."""
    choice = recipe.model
    options = choice.arguments
    backbone: Any = build_model(
        choice.backbone,
        any_size=True,
        img_size=_whole_patches(choice.backbone, recipe.augment.crop, options),
        pretrained=fresh and choice.weights == "pretrained",
        drop_path=choice.drop_path,
        **options,
    )
    Preprocessing.of_timm(backbone).require_channels(choice.in_chans)
    if fresh and choice.weights not in (None, "pretrained"):
        load_weights(backbone, saved_weights(choice.weights))
    model = SegmentationModel(
        backbone,
        num_classes,
        head=choice.head,
        channels=choice.channels,
        dropout=choice.dropout,
        logit_adjustment=recipe.test.logit_adjustment,
    )
    if choice.freeze:
        freeze_backbone(model.pyramid.backbone)
    return model


def _whole_patches(
    backbone: str, crop: tuple[int, int], options: dict[str, Any]
) -> tuple[int, int]:
    """The crop with sides that the backbone's patches divide, as images are padded to it."""
    with torch.device("meta"):
        height, width = patch_size(build_model(backbone, any_size=True, **options))
    return crop[0] + -crop[0] % height, crop[1] + -crop[1] % width


def normalization(model: SegmentationModel) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation of pixels in [0, 1], as the backbone takes them."""
    settings = Preprocessing.of_timm(model.pyramid.backbone)
    return {"mean": settings.mean, "std": settings.std}


def segmenter_of(
    model: SegmentationModel, recipe: SegmentationRecipe, device: torch.device, **changes: Any
) -> Segmenter:
    """A model shown images as the recipe says, with changes of its `Inference`."""
    plan = inference_of(recipe, **changes)
    shown = normalization(model)
    return Segmenter(model, shown["mean"], shown["std"], inference=plan, device=device)


def inference_of(recipe: SegmentationRecipe, **changes: Any) -> Inference:
    test = recipe.test
    own = {"short_side": test.short_side, "window": test.window, "stride": test.stride}
    return Inference(**(own | changes))


@dataclass(frozen=True)
class TrainedSegmenter:
    """A trained model with all that is needed to use it."""

    model: SegmentationModel  # in evaluation mode, on the CPU
    recipe: SegmentationRecipe
    classes: ClassList
    weights: Path  # the file that they were read from
    run: Path | None = None  # the folder of its run
    rules: DecodeRules = AS_STORED  # how the images that it was trained on became pixels

    def segmenter(self, device: torch.device, **changes: Any) -> Segmenter:
        """The model on a device, shown images as its recipe says, with changes."""
        return segmenter_of(self.model.to(device), self.recipe, device, **changes)


def load_segmenter(run: Path, settings: Sequence[str] = ()) -> TrainedSegmenter:
    """The model of a run's folder: its best checkpoint, or else its newest one; or one checkpoint's.

    The moving average of the weights is taken where the run keeps one. `settings` replace values of
    the run's recipe ("test.short_side=640"). Raises InputError if the folder holds no run, or one
    that has saved nothing yet.
    """
    if run.is_file():
        raise InputError(
            f"{run} is a file of weights: give its run's folder, or (to eval and predict) --recipe"
        )
    opened = open_run(run, SegmentationRecipe)
    known = opened.facts
    classes = ClassList(tuple(known["classes"]), tuple(known["values"]), tuple(known["ignored"]))
    recipe = override(opened.recipe, settings)
    rules = DecodeRules.of_dict(known.get("decode", {}))
    trained = load_checkpoint(opened.weights(), recipe, classes)
    return dataclasses.replace(trained, run=opened.folder, rules=rules)


def load_checkpoint(
    weights: Path, recipe: SegmentationRecipe, classes: ClassList
) -> TrainedSegmenter:
    """A model of the recipe's shape with the weights of a file, ours or mmsegmentation's."""
    model = create_segmenter(recipe, len(classes))
    load_segmentation_weights(model, weights)
    rules = DecodeRules(channels=recipe.model.in_chans, chosen=recipe.data.channels)
    return TrainedSegmenter(model.eval(), recipe, classes, weights, rules=rules)
