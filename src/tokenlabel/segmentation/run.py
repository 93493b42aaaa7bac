"""From a recipe to a segmentation model, and from a run's folder back to one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from tokenlabel.data.decode import AS_STORED, DecodeRules
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.errors import InputError
from tokenlabel.models import build_model, load_weights
from tokenlabel.progress import console
from tokenlabel.runs.open import open_run, saved_weights
from tokenlabel.runs.recipe_file import override
from tokenlabel.runs.results import TrainResult
from tokenlabel.segmentation.account import account_of
from tokenlabel.segmentation.augment import PairAugmentation
from tokenlabel.segmentation.checkpoints import load_segmentation_weights
from tokenlabel.segmentation.classes import ClassList
from tokenlabel.segmentation.dataset import PairBatch, pair_loader
from tokenlabel.segmentation.evaluate import evaluate_pairs
from tokenlabel.segmentation.inference import Inference, Segmenter
from tokenlabel.segmentation.model import SegmentationModel
from tokenlabel.segmentation.pairs import Pairs, open_pairs
from tokenlabel.segmentation.recipe import SegmentationRecipe
from tokenlabel.segmentation.sheets import answered_pairs, first_pairs
from tokenlabel.segmentation.task import SegmentationTask, class_weights
from tokenlabel.training.batches import LoaderBatches, update_batches
from tokenlabel.training.callbacks import Callback
from tokenlabel.training.engine import fit
from tokenlabel.training.loop import Validation
from tokenlabel.training.ranks import Ranks

__all__ = [
    "SegmentationSpec",
    "TrainedSegmenter",
    "create_segmenter",
    "load_checkpoint",
    "load_segmenter",
    "normalization",
    "open_split",
    "train",
]


def train(
    recipe: SegmentationRecipe,
    output: str | Path,
    *,
    callbacks: Iterable[Callback] = (),
    allow_changed: Iterable[str] = (),
) -> TrainResult:
    """Train a segmentation network as the recipe says (see `tokenlabel.training.engine.fit`)."""
    spec = SegmentationSpec(recipe)
    return fit(recipe, spec, output, callbacks=callbacks, allow_changed=allow_changed)


class SegmentationSpec:
    """A segmentation network on pairs of images and masks."""

    def __init__(self, recipe: SegmentationRecipe) -> None:
        """Opens the images. Raises InputError for what the recipe lacks."""
        recipe.schedule.course(1)
        _inference(recipe)
        self.recipe = recipe
        self.pairs = open_split(recipe, recipe.data.train_split)
        self.held_out = _held_out(recipe, self.pairs)

    def build(self, ranks: Ranks) -> SegmentationTask:
        recipe = self.recipe
        self.accounts = {
            part: account_of(found, workers=max(recipe.data.workers, 1), show=ranks.first)
            for part, found in self._parts().items()
        }
        if ranks.first:
            self._say()
        balance = recipe.loss.class_balance
        counts = self.accounts["training"].pixels
        torch.manual_seed(recipe.seed)
        self.model = create_segmenter(recipe, len(self.pairs.classes), fresh=True)
        return SegmentationTask(
            self.model,
            **normalization(self.model),
            auxiliary_weight=recipe.loss.auxiliary_weight,
            class_weights=class_weights(counts, balance) if balance else None,
        )

    def batches(self, ranks: Ranks) -> LoaderBatches[PairBatch]:
        recipe, augment = self.recipe, self.recipe.augment
        red, green, blue = (round(255 * value) for value in normalization(self.model)["mean"])
        batches = update_batches(
            pair_loader,
            self.pairs,
            PairAugmentation(
                crop=augment.crop,
                short_side=recipe.test.short_side,
                scale=augment.scale,
                largest_share=augment.largest_share,
                hflip=augment.hflip,
                color=augment.color,
                fill=(red, green, blue),
            ),
            recipe=recipe,
            workers=recipe.data.workers,
            ranks=ranks,
        )
        if not batches.updates_per_epoch:
            raise InputError(
                f"{len(self.pairs)} images do not fill one batch of {recipe.schedule.batch_size}:"
                " choose a smaller schedule.batch_size"
            )
        self.loader, self.device = batches.loader, ranks.device
        return batches

    def evaluator(self, ranks: Ranks) -> Validation | None:
        held_out = self.held_out
        if held_out is None:
            return None

        def measure(model: nn.Module) -> dict[str, float]:
            assert isinstance(model, SegmentationModel)
            segmenter = _segmenter(model, self.recipe, ranks.device)
            return evaluate_pairs(segmenter, held_out, ranks, show=False).summary()

        return measure

    def facts(self) -> dict[str, Any]:
        classes = self.pairs.classes
        fingerprints = {
            part: found.fingerprint(repr(self.accounts[part].as_dict()))
            for part, found in self._parts().items()
        }
        return {
            "images": len(self.pairs),
            "classes": classes.names,
            "values": classes.values,
            "ignored": classes.ignored,
            "decode": self.pairs.rules.as_dict(),
            "masks": {part: account.as_dict() for part, account in self.accounts.items()},
            "left_out": self._left_out(),
            "images_fingerprint": fingerprints["training"],
            "held_out": None if self.held_out is None else {
                "images": len(self.held_out), "fingerprint": fingerprints["validation"]
            },
        }  # fmt: skip

    def _parts(self) -> dict[str, Pairs]:
        parts = {"training": self.pairs, "validation": self.held_out}
        return {part: found for part, found in parts.items() if found is not None}

    def _left_out(self) -> dict[str, int]:
        """Reason -> number of what the training data holds and the run does not use."""
        unmasked = {"images without a mask": len(self.pairs.unmasked)}
        return dict(self.pairs.passed_over) | {k: n for k, n in unmasked.items() if n}

    def _say(self) -> None:
        """What a user should know before hours are spent."""
        recipe = self.recipe
        if recipe.model.weights is None:
            console.print(
                f"note: {recipe.model.backbone} starts from RANDOM weights; published results start"
                " from a trained backbone: --weights RUN (a folder of `tokenlabel train`), or"
                " pretrained",
                soft_wrap=True,
            )
        applied = recipe.data.orientation == "apply"
        for part, found in self._parts().items():
            lines = self.accounts[part].lines(part, orientation_applied=applied)
            for line in (f"{part}: {found.line()}", *lines):
                console.print(line, soft_wrap=True, markup=False)

    def first_batch(self) -> Image.Image:
        return first_pairs(self.loader, self.pairs.classes)

    def answers(self, run: Path) -> Image.Image | None:
        if self.held_out is None:
            return None
        return answered_pairs(load_segmenter(run).segmenter(self.device), self.held_out)


def open_split(recipe: SegmentationRecipe, split: str) -> Pairs:
    """The pairs of a split of the recipe's data set."""
    data = recipe.data
    if not data.root:
        raise InputError("data.root is empty: name the folder of the images and masks")
    return open_pairs(
        Path(data.root),
        split,
        layout=data.layout,
        class_file=None if data.classes is None else Path(data.classes),
        ignore_index=data.ignore_index,
        orientation=data.orientation,
    )


def create_segmenter(
    recipe: SegmentationRecipe, num_classes: int, *, fresh: bool = False
) -> SegmentationModel:
    """The recipe's model; `fresh` gives its backbone the weights that training starts from."""
    choice = recipe.model
    options = dict(choice.kwargs)
    if choice.drop_path:
        options["drop_path_rate"] = choice.drop_path
    backbone: Any = build_model(
        choice.backbone,
        any_size=True,
        img_size=recipe.augment.crop,
        pretrained=fresh and choice.weights == "pretrained",
        **options,
    )
    if fresh and choice.weights not in (None, "pretrained"):
        load_weights(backbone, saved_weights(choice.weights))
    if recipe.engine.activation_checkpointing:
        backbone.set_grad_checkpointing(True)
    return SegmentationModel(
        backbone,
        num_classes,
        head=choice.head,
        channels=choice.channels,
        dropout=choice.dropout,
    )


def normalization(model: SegmentationModel) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation of pixels in [0, 1], as the backbone takes them."""
    settings = Preprocessing.of_timm(model.pyramid.backbone)
    return {"mean": settings.mean, "std": settings.std}


def _segmenter(
    model: SegmentationModel, recipe: SegmentationRecipe, device: torch.device, **changes: Any
) -> Segmenter:
    """A model shown images as the recipe says, with changes of its `Inference`."""
    plan = _inference(recipe, **changes)
    return Segmenter(model, **normalization(model), inference=plan, device=device)


def _inference(recipe: SegmentationRecipe, **changes: Any) -> Inference:
    test = recipe.test
    own = {"short_side": test.short_side, "window": test.window, "stride": test.stride}
    return Inference(**(own | changes))


def _held_out(recipe: SegmentationRecipe, pairs: Pairs) -> Pairs | None:
    """The pairs of the validation, none of them among those of the training."""
    if recipe.data.val_split is None:
        return None
    held_out = open_split(recipe, recipe.data.val_split)
    if held_out.items[0].image == pairs.items[0].image:
        raise InputError(
            f"{recipe.data.root} has no {recipe.data.val_split!r} of its own: make a folder of that"
            " name, or set data.val_split to null"
        )
    return dataclasses.replace(held_out, rules=pairs.rules)  # one data set, one range of values


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
        return _segmenter(self.model.to(device), self.recipe, device, **changes)


def load_segmenter(run: Path, settings: Sequence[str] = ()) -> TrainedSegmenter:
    """The model of a run's folder: its best checkpoint, or else its newest one; or one checkpoint's.

    The moving average of the weights is taken where the run keeps one. `settings` replace values of
    the run's recipe ("test.short_side=640"). Raises InputError if the folder holds no run, or one
    that has saved nothing yet.
    """
    if run.is_file():
        raise InputError(
            f"{run} is a file of weights: give its run's folder, or (to eval) --recipe"
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
    return TrainedSegmenter(model.eval(), recipe, classes, weights)
