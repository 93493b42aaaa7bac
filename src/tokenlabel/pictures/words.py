"""What visual words are like: for each its share of the data, and the patches most typical of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore
from tokenlabel.labels.health import Pixels, sampled
from tokenlabel.pictures.colors import class_colors
from tokenlabel.pictures.sheet import MARGIN, caption, row, stacked

__all__ = ["Typical", "draw_words", "typical_patches", "word_sheet"]

_PATCHES = 10  # of each word
_CELL = (72, 72)
_AROUND = 1.5  # cells on each side of the middle of a patch that its picture shows
_FULLEST = 12  # words, where none is asked for


class _Patch(NamedTuple):
    probability: float
    key: str
    row: int
    column: int


class Typical(NamedTuple):
    """Of each word of a store."""

    shares: Tensor  # [V], of all cells
    patches: list[list[_Patch]]  # the most probable ones of different images


def word_sheet(
    store: LabelStore,
    keys: Sequence[str],
    pixels: Callable[[str], Pixels],
    words: Sequence[int] = (),
    *,
    sample: int = 1000,
) -> Image.Image:
    """A row for each of `words`: its color, its share of all cells, the patches most typical of it.

    By default the words are spread from the fullest to the emptiest. Patches are the most probable ones
    of different images among a sample of `keys`. Raises InputError for words that are none.
    """
    if not store.manifest.words:
        raise InputError(
            f"{store.location} holds labels of classes: it has no visual words to show"
        )
    unknown = [word for word in words if not 0 <= word < store.num_classes]
    if unknown:
        raise InputError(
            f"no word {unknown[0]}: {store.location} has words 0 to {store.num_classes - 1}"
        )
    typical = typical_patches(store, keys, sample)
    order = typical.shares.argsort(descending=True, stable=True)
    spread = order[torch.linspace(0, int((typical.shares > 0).sum()) - 1, _FULLEST).long()]
    return draw_words(store, typical, pixels, words or list(dict.fromkeys(spread.tolist())))


def typical_patches(store: LabelStore, keys: Sequence[str], sample: int = 1000) -> Typical:
    """Shares and typical patches of all words, of a sample of `keys`."""
    chosen = sampled(store, keys, sample)
    if not chosen:
        raise InputError(f"{store.location} has no label of any of these images")
    seen = torch.zeros(store.num_classes)
    typical: list[list[_Patch]] = [[] for _ in range(store.num_classes)]
    for key in chosen:
        label = store[key]
        best, probability = label.classes[0], label.probabilities()[0]
        seen += torch.bincount(best.flatten(), minlength=len(seen))
        for word in torch.unique(best).tolist():
            place = int(probability.where(best == word, -1).argmax())
            patch = _Patch(float(probability.flatten()[place]), key, *divmod(place, best.shape[1]))
            typical[word] = sorted([*typical[word], patch], key=lambda p: (-p.probability, p.key))
            del typical[word][_PATCHES:]
    return Typical(seen / seen.sum(), typical)


def draw_words(
    store: LabelStore, typical: Typical, pixels: Callable[[str], Pixels], words: Sequence[int]
) -> Image.Image:
    """The rows of `word_sheet`; `pixels` is the image of a key."""
    colors = (class_colors(store.num_classes) * 255).astype(np.uint8)
    rows = []
    for word in words:
        color = Image.new("RGB", _CELL, tuple(colors[word].tolist()))
        patches = [_picture(store, pixels, patch) for patch in typical.patches[word]]
        strip = row([color, *patches], _CELL, columns=1 + _PATCHES)
        text = f"word {word}: {typical.shares[word]:.2%} of cells"
        caption(strip, text, (MARGIN, 3), strip.width)
        rows.append(strip)
    return stacked(rows)


def _picture(store: LabelStore, pixels: Callable[[str], Pixels], patch: _Patch) -> Image.Image:
    """A patch with its surroundings."""
    image, label = pixels(patch.key), store[patch.key]
    box, (rows, columns) = label.extent, label.grid
    height, width = box.height * image.shape[0] / rows, box.width * image.shape[1] / columns
    x = box.x0 * image.shape[1] + (patch.column + 0.5) * width
    y = box.y0 * image.shape[0] + (patch.row + 0.5) * height
    edges = (x - _AROUND * width, y - _AROUND * height, x + _AROUND * width, y + _AROUND * height)
    cut = Image.fromarray(image).crop(tuple(round(edge) for edge in edges))
    return cut.resize(_CELL, Image.Resampling.BILINEAR)
