"""Loaders of scenes: of their images or, for a frozen backbone, of its features."""

from __future__ import annotations

import numpy as np

from tokenlabel.data.loader import Loader
from tokenlabel.data.order import BatchOrder
from tokenlabel.errors import InputError
from tokenlabel.segmentation.augment import PairAugmentation
from tokenlabel.segmentation.dataset import PairBatch, Samples, SoftScenes
from tokenlabel.segmentation.features import FeatureLoader, Features
from tokenlabel.segmentation.pairs import Pairs

__all__ = ["pair_loader"]


def pair_loader(
    pairs: Pairs,
    augmentation: PairAugmentation,
    *,
    batch_size: int,
    seed: int = 0,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
    views: int | None = None,
    soft: SoftScenes | None = None,
    features: Features | None = None,
) -> Loader[PairBatch]:
    """Shuffled, augmented batches of `batch_size` scenes a rank.

    What a batch holds depends on (seed, epoch, step, rank) and on nothing else. For `views` and `soft`
    see `Samples`; with `features`, a batch holds these in the place of the images (see
    `FeatureLoader`). Raises InputError where the scenes are fewer than one step of all ranks takes.
    """
    samples = Samples(pairs, augmentation, seed, views, soft)
    if len(samples) < batch_size * world:
        raise InputError(
            f"{len(samples)} images are fewer than one batch of {batch_size * world}:"
            " choose a smaller batch size"
        )
    order = BatchOrder(np.arange(len(samples)), batch_size, seed=seed, rank=rank, world=world)
    if features is not None:
        return FeatureLoader(samples, order, workers, features)
    return Loader(samples, order, workers, pin_memory)
