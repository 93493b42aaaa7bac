"""What a classifier says of images, one `Prediction` each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tokenlabel.data.decode import decode_image
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.pictures import open_pictures
from tokenlabel.data.reading import StorageError
from tokenlabel.data.rules import DecodeRules
from tokenlabel.data.source import ImageSource, read_by
from tokenlabel.errors import InputError
from tokenlabel.geometry.render import Pixels

__all__ = ["Guess", "Picture", "Prediction", "named_pictures", "pictures_of", "predict_pictures"]


class Guess(NamedTuple):
    """A class and how sure the model is of it."""

    label: str
    """The class as the training images name it: a folder's name, an ImageNet id, a number."""
    title: str
    """The class for people: "tench" where the label is "n01440764", else the label."""
    number: int
    confidence: float
    """Its probability, in [0, 1]."""


@dataclass(frozen=True)
class Prediction:
    """A model's answer to one image."""

    image: str
    """The path, the name within its archive, or the number of an image given as pixels."""
    top: tuple[Guess, ...] = ()
    """The best classes, best first."""
    answers: tuple[Guess, ...] = ()
    """What the image is said to have: the best class, or, of a model whose images may have several,
    every class that reaches the threshold, perhaps none. Best first."""
    error: str | None = None
    """Why the image could not be read; nothing else is known of it then."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of `answers`."""
        return tuple(guess.label for guess in self.answers)

    @property
    def label(self) -> str | None:
        """The best class; None where the image could not be read."""
        return self.top[0].label if self.top else None

    @property
    def confidence(self) -> float | None:
        """The best class's probability, in [0, 1]; None where the image could not be read."""
        return self.top[0].confidence if self.top else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "image": self.image,
            "class": self.label,
            "confidence": self.confidence,
            "classes": list(self.labels),
            "top": [guess._asdict() for guess in self.top],
            "error": self.error,
        }


class Picture(NamedTuple):
    """An image that is read when its turn comes."""

    name: str
    pixels: Callable[[], Pixels]
    """[H, W, C] from 0 to 255. Raises InputError where the image cannot be read."""


def pictures_of(source: ImageSource, rules: DecodeRules | None = None) -> Iterator[Picture]:
    """The images of a source, read by the `rules` that a model was trained by."""
    if rules is not None:
        source = read_by(source, rules)
    for i, key in enumerate(source.keys):
        yield Picture(key, partial(_decoded, source, i))


def named_pictures(images: Any, rules: DecodeRules, orientation: Any) -> Iterator[Picture]:
    """Images as a caller gives them: one, or several, of paths, arrays, tensors and Pillow's images.

    Arrays are [H, W, C], tensors [C, H, W] or a batch [B, C, H, W], C as the rules say: uint8, or
    float32 from 0 to 255 where the rules are `deep`; a path is whatever `open_pictures` takes. Raises
    InputError for anything else.
    """
    if isinstance(images, Tensor) and images.ndim == 4:
        images = list(images)
    single = isinstance(images, (str, PathLike, Tensor, np.ndarray, Image.Image))
    for number, image in enumerate([images] if single else images):
        if isinstance(image, (str, PathLike)):
            for source in open_pictures([str(image)], orientation=orientation):
                yield from pictures_of(source, rules)
        else:
            pixels = _pixels(image, rules)
            yield Picture(str(number), lambda pixels=pixels: pixels)  # type: ignore[misc]


def predict_pictures(
    pictures: Iterable[Picture],
    shown: Preprocessing,
    probabilities: Callable[[Tensor], Tensor],
    names: Sequence[tuple[str, str]],
    *,
    batch_size: int = 64,
    top: int = 5,
    workers: int = 4,
    threshold: float | None = None,
) -> Iterator[Prediction]:
    """The `top` classes of each picture, in order; an image that cannot be read has an error.

    `probabilities` maps images [B, C, h, w] from 0 to 255 to probabilities [B, K]; `names` are label
    and title of each class. With a `threshold`, all classes that reach it are the answer. Images are
    read by `workers` threads while the model computes. Raises StorageError where the storage fails:
    that says nothing of an image.
    """
    remaining = iter(pictures)
    waiting: deque[Iterator[tuple[str, Tensor | str]]] = deque()
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        while chunk := list(islice(remaining, batch_size)):
            waiting.append(pool.map(partial(_input, shown), chunk))
            if len(waiting) > 1:
                yield from _judged(list(waiting.popleft()), probabilities, names, top, threshold)
        for read in waiting:
            yield from _judged(list(read), probabilities, names, top, threshold)


@torch.inference_mode()
def _judged(
    read: list[tuple[str, Tensor | str]],
    probabilities: Callable[[Tensor], Tensor],
    names: Sequence[tuple[str, str]],
    top: int,
    threshold: float | None,
) -> list[Prediction]:
    inputs = [found for _, found in read if isinstance(found, Tensor)]
    found = iter(probabilities(torch.stack(inputs)).float().cpu() if inputs else ())
    made = []
    for name, image in read:
        if isinstance(image, str):
            made.append(Prediction(name, error=image))
            continue
        ordered = next(found).sort(descending=True, stable=True)
        reached = 1 if threshold is None else int((ordered.values >= threshold).sum())
        count = max(min(top, len(names)), reached)
        guesses = tuple(
            Guess(label=names[i][0], title=names[i][1], number=i, confidence=value)
            for i, value in zip(
                ordered.indices[:count].tolist(), ordered.values[:count].tolist(), strict=True
            )
        )
        made.append(Prediction(name, guesses[:top], guesses[:reached]))
    return made


def _input(shown: Preprocessing, picture: Picture) -> tuple[str, Tensor | str]:
    """The model's input made of a picture, or what is wrong with it."""
    try:
        return picture.name, shown.pixels(picture.pixels())
    except StorageError:
        raise
    except InputError as error:
        return picture.name, str(error)


def _decoded(source: ImageSource, index: int) -> Pixels:
    return decode_image(source.read(index), source.keys[index], source.rules)


def _pixels(image: Any, rules: DecodeRules) -> Pixels:
    count = rules.channels
    if isinstance(image, Image.Image):
        image = np.array(image.convert({1: "L", 3: "RGB"}.get(count, image.mode)))
        image = image if image.ndim == 3 else image[..., None]
    if isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] == count:
        image = image.permute(1, 2, 0).cpu().numpy()
    if isinstance(image, np.ndarray) and image.shape[2:] == (count,):
        if image.dtype == np.uint8:
            return np.ascontiguousarray(image, rules.dtype)
        if image.dtype == rules.dtype:
            return np.ascontiguousarray(image)
    raise InputError(
        f"cannot predict of {_described(image)}: give paths, Pillow images, {rules.dtype} arrays"
        f" [H, W, {count}] or {rules.dtype} tensors [{count}, H, W]"
    )


def _described(image: Any) -> str:
    shape, kind = getattr(image, "shape", None), type(image).__name__
    return kind if shape is None else f"{kind} {image.dtype} {list(shape)}"
