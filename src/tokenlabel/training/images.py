"""The images a run trains on, and those that it validates on."""

from __future__ import annotations

from tokenlabel.data.channels import of_channels
from tokenlabel.data.matching import in_classes_of
from tokenlabel.data.open import HOLDOUT_SEED, announce, holdout, open_images
from tokenlabel.data.source import (
    ImageSource,
    has_classes,
    read_by,
    require_labels,
    without_classes,
)
from tokenlabel.errors import InputError
from tokenlabel.runs.recipe import Data

__all__ = ["hold_out", "training_images"]


def training_images(data: Data, in_chans: int = 3) -> tuple[ImageSource, ImageSource | None]:
    """Training images and validation images (None: nothing is validated) as the recipe names them.

    Both have the classes of the training images; where the validation images lack one, a line says
    so. `in_chans` is how many channels the model takes. Raises InputError where the validation images
    are of other classes, or have none. Training images without classes leave the validation images
    their own, and none are held out of them.
    """
    opened = open_images(data.train, data.train_split, "train", orientation=data.orientation)
    opened = of_channels(opened, in_chans, data.channels)
    if not has_classes(opened):
        return _without_classes(without_classes(opened), data)
    source = require_labels(opened, data.train)
    if data.val is not None:
        announce(source, data.train)
        opened = open_images(data.val, data.val_split, "val", orientation=data.orientation)
        if not has_classes(opened):
            raise InputError(
                f"{data.val} has no classes: name validation images in folders of the classes of"
                f" {data.train}, or leave --val out"
            )
        held_out = read_by(require_labels(opened, data.val), source.rules)  # one range of values
        names = (_named(data.train, source), _named(data.val, held_out))
        held_out = in_classes_of(held_out, source, *names)
        announce(held_out, data.val)
        return source, held_out
    if data.holdout:
        source, held = hold_out(source, data.holdout, data.train)
        announce(source, data.train)
        return source, held
    announce(source, data.train)
    return source, None


def hold_out(source: ImageSource, share: float, location: str) -> tuple[ImageSource, ImageSource]:
    """`holdout` with the seed of all runs. Raises InputError where it would hold out nothing."""
    kept, held = holdout(source, share, HOLDOUT_SEED)
    if not len(held):
        raise InputError(
            f"no class of {location} has two images, so that none can be held out to measure the"
            " accuracy: set the holdout to 0, or give other images for that"
        )
    return kept, held


def _without_classes(source: ImageSource, data: Data) -> tuple[ImageSource, ImageSource | None]:
    announce(source, data.train)
    if data.val is None or (data.val, data.val_split) == (data.train, None):
        return source, None
    opened = open_images(data.val, data.val_split, "val", orientation=data.orientation)
    if not has_classes(opened):
        if data.val == data.train:
            return source, None
        raise InputError(
            f"{data.val} holds no classes, and a student without classes is judged by the classes of"
            " nearest neighbors: give labeled images, or leave --val out"
        )
    held_out = read_by(require_labels(opened, data.val), source.rules)
    announce(held_out, data.val)
    return source, held_out


def _named(location: str, source: ImageSource) -> str:
    """The location and the part of it, to tell two parts of one data set apart."""
    return f"{location} (part {source.found.part!r})" if source.found.part else location
