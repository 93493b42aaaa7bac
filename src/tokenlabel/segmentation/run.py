"""What `segment train` trains, and on what."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore
from tokenlabel.progress import console, first_process
from tokenlabel.runs.results import TrainResult
from tokenlabel.segmentation.account import MaskAccount, account_of
from tokenlabel.segmentation.augment import PairAugmentation
from tokenlabel.segmentation.dataset import PairBatch, shown_with_masks, soft_scenes
from tokenlabel.segmentation.evaluate import evaluate_pairs
from tokenlabel.segmentation.features import Features, kept_bytes, require_memory
from tokenlabel.segmentation.loader import pair_loader
from tokenlabel.segmentation.model import SegmentationModel
from tokenlabel.segmentation.pairs import Pair, Pairs, open_pairs
from tokenlabel.segmentation.recipe import SegmentationRecipe
from tokenlabel.segmentation.sheets import answered_pairs, first_pairs
from tokenlabel.segmentation.task import SegmentationTask, class_weights
from tokenlabel.segmentation.trained import (
    create_segmenter,
    inference_of,
    load_segmenter,
    normalization,
    segmenter_of,
)
from tokenlabel.training.batches import LoaderBatches, update_batches
from tokenlabel.training.callbacks import Callback
from tokenlabel.training.engine import fit
from tokenlabel.training.loop import Validation
from tokenlabel.training.ranks import Ranks

__all__ = ["SegmentationSpec", "open_split", "train"]


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
        inference_of(recipe)
        self.recipe = recipe
        self.pairs = open_split(recipe, recipe.data.train_split)
        self.held_out = _held_out(recipe, self.pairs)
        self.store = None if recipe.data.labels is None else LabelStore(recipe.data.labels)
        self.soft = None
        if self.store is not None:
            self.soft = soft_scenes(
                self.pairs, self.store, recipe.loss.soft_threshold, recipe.data.mask_repeats
            )

    def build(self, ranks: Ranks) -> SegmentationTask:
        recipe = self.recipe
        if ranks.first:
            self._say()
        balance = recipe.loss.class_balance
        counts = self.accounts["training"].pixels
        weights = class_weights(counts, balance) if balance else None
        torch.manual_seed(recipe.seed)
        self.model = create_segmenter(recipe, len(self.pairs.classes), fresh=True)
        self._say_memory(ranks)
        if weights is not None:
            # a weight of 0 is that of a class that no mask shows
            self.model.log_weights.copy_(torch.where(weights > 0, weights, 1.0).log())
        self.task = SegmentationTask(
            self.model,
            **normalization(self.model),
            auxiliary_weight=recipe.loss.auxiliary_weight,
            soft_weight=recipe.loss.soft_weight,
            class_weights=weights,
        )
        return self.task

    def batches(self, ranks: Ranks) -> LoaderBatches[PairBatch]:
        recipe, augment = self.recipe, self.recipe.augment
        augmentation = PairAugmentation(
            crop=augment.crop,
            short_side=recipe.test.short_side,
            scale=augment.scale,
            largest_share=augment.largest_share,
            hflip=augment.hflip,
            color=augment.color,
            fill=tuple(round(255 * value) for value in normalization(self.model)["mean"]),
        )
        batches = update_batches(
            pair_loader,
            self.pairs,
            augmentation,
            recipe=recipe,
            workers=recipe.data.workers,
            ranks=ranks,
            views=augment.views,
            soft=self.soft,
            features=self._features(ranks),
        )
        self.loader, self.device = batches.loader, ranks.device
        return batches

    @property
    def _views(self) -> int | None:
        """How many views of a scene have their features kept; None: nothing is kept."""
        return self.recipe.augment.views if self.recipe.model.freeze else None

    def _features(self, ranks: Ranks) -> Features | None:
        """What makes features to keep, where the backbone and the views stay the same."""
        if self._views is None:
            return None

        def features(images: Tensor) -> list[Tensor]:
            with ranks.autocast():
                return self.task.features(images)

        return features

    def _say_memory(self, ranks: Ranks) -> None:
        """What features to keep will take. Raises InputError where this machine has not so much."""
        views = self._views
        if views is None:
            return
        masked = shown_with_masks(self.pairs, self.soft) * views
        soft = len(self._soft) * views
        needed = kept_bytes(self.model, self.recipe.augment.crop, masked, soft)
        said = require_memory(needed, masked + soft)
        if ranks.first:
            console.print(
                f"features of {self._scenes:,} images x {views} views are made once, and kept in {said}",
                soft_wrap=True,
            )

    def evaluator(self, ranks: Ranks) -> Validation | None:
        held_out = self.held_out
        if held_out is None:
            return None

        def measure(model: nn.Module) -> dict[str, float]:
            assert isinstance(model, SegmentationModel)
            segmenter = segmenter_of(model, self.recipe, ranks.device)
            return evaluate_pairs(segmenter, held_out, ranks, show=False).summary()

        return measure

    def facts(self) -> dict[str, Any]:
        classes = self.pairs.classes
        fingerprints = {
            part: found.fingerprint(repr(self.accounts[part].as_dict()))
            for part, found in self._parts().items()
        }
        return {
            "images": self._scenes,
            "soft": len(self._soft),
            "classes": classes.names,
            "values": classes.values,
            "ignored": classes.ignored,
            "decode": self.pairs.rules.as_dict(),
            "masks": {part: account.as_dict() for part, account in self.accounts.items()},
            "left_out": self._left_out(),
            "labels": None if self.store is None else {
                "location": self.store.location, "index_sha256": self.store.manifest.index_sha256
            },
            "images_fingerprint": fingerprints["training"],
            "soft_fingerprint": dataclasses.replace(self.pairs, items=self._soft).fingerprint(),
            "held_out": None if self.held_out is None else {
                "images": len(self.held_out), "fingerprint": fingerprints["validation"]
            },
        }  # fmt: skip

    @property
    def _soft(self) -> tuple[Pair, ...]:
        """The scenes with soft labels."""
        return () if self.soft is None else self.soft.scenes

    @property
    def _scenes(self) -> int:
        return len(self.pairs) + len(self._soft)

    @cached_property
    def accounts(self) -> dict[str, MaskAccount]:
        """What the masks of each part hold: all of them are read, once."""
        workers = max(self.recipe.data.workers, 1)
        return {
            part: account_of(found, workers=workers, show=first_process())
            for part, found in self._parts().items()
        }

    def _parts(self) -> dict[str, Pairs]:
        parts = {"training": self.pairs, "validation": self.held_out}
        return {part: found for part, found in parts.items() if found is not None}

    def _left_out(self) -> dict[str, int]:
        """Reason -> number of what the training data holds and the run does not use."""
        lost = len(self.pairs.unmasked) - len(self._soft)
        unmasked = {
            "images without a mask or label" if self.soft else "images without a mask": lost
        }
        return dict(self.pairs.passed_over) | {k: n for k, n in unmasked.items() if n}

    def _say(self) -> None:
        """What a user should know before hours are spent."""
        recipe = self.recipe
        if recipe.model.weights is None:
            how = "is frozen with" if recipe.model.freeze else "starts from"
            console.print(
                f"note: {recipe.model.backbone} {how} RANDOM weights; published results start from a"
                " trained backbone: --weights RUN (a folder of `tokenlabel train`), or pretrained",
                soft_wrap=True,
            )
        applied = recipe.data.orientation == "apply"
        for part, found in self._parts().items():
            lines = self.accounts[part].lines(part, orientation_applied=applied)
            for line in (f"{part}: {found.line()}", *lines):
                console.print(line, soft_wrap=True, markup=False)
        if self.soft is not None:
            lost = len(self.pairs.unmasked) - len(self._soft)
            console.print(
                f"training: {len(self._soft):,} scenes without a mask have soft labels,"
                f" {lost:,} have neither and are left out",
                soft_wrap=True,
            )

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
        in_chans=recipe.model.in_chans,
        channels=data.channels,
    )


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
