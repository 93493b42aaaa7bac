"""A run's pictures: what its training sees, and what its network answers."""

from __future__ import annotations

import copy

from PIL import Image

from tokenlabel.data.loader import Loader
from tokenlabel.pictures.answers import spread
from tokenlabel.pictures.segmentation import Masked, mask_sheet
from tokenlabel.segmentation.classes import ClassList
from tokenlabel.segmentation.dataset import PairBatch
from tokenlabel.segmentation.files import read_pair
from tokenlabel.segmentation.inference import Segmenter
from tokenlabel.segmentation.pairs import Pairs

__all__ = ["answered_pairs", "first_pairs"]

_COUNT = 4  # pictures of a sheet


def first_pairs(loader: Loader[PairBatch], classes: ClassList) -> Image.Image:
    """The first samples of the training, made again beside the loader, which is left as it is."""
    order = copy.copy(loader.order)
    order.epoch, order.start = 0, 0
    batch = loader.samples.make(next(iter(order))[:_COUNT])
    return mask_sheet(
        [
            Masked(key, image.permute(1, 2, 0).numpy(), {"mask": labels.numpy()})
            for key, image, labels in zip(batch.keys, batch.images, batch.labels, strict=True)
        ],
        classes.names,
    )


def answered_pairs(segmenter: Segmenter, held_out: Pairs) -> Image.Image:
    """Images of a validation, evenly spread, with their masks and what the network says."""
    pictures = []
    for place in spread(len(held_out), _COUNT):
        pair = held_out.items[place]
        image, labels = read_pair(pair, held_out.classes, held_out.rules)
        masks = {"mask": labels, "answer": segmenter(image)}
        pictures.append(Masked(pair.key, image, masks))
    return mask_sheet(pictures, held_out.classes.names)
