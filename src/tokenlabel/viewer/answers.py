"""What the page asks for, as plain values: everything is found by an image's number."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from tokenlabel.data.decode import decode_picture
from tokenlabel.data.samples import class_labels
from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import Classifier, class_titles, default_names
from tokenlabel.geometry import Box, View
from tokenlabel.geometry.render import Pixels
from tokenlabel.labels import LabelMap, LabelStore, token_targets
from tokenlabel.losses import class_loss
from tokenlabel.pictures.colors import hex_colors
from tokenlabel.pictures.explain import token_map
from tokenlabel.pictures.words import Typical, draw_words, typical_patches
from tokenlabel.supervision import multi_hot
from tokenlabel.viewer.catalog import Catalog, Query

__all__ = ["Answers", "student_loss"]

_TOP = 5  # classes of a cell that the page shows
_GUESSES = 3  # classes of the student's answer
_MAX_LIMIT, _MAX_SIDE, _MAX_GRID = 500, 2048, 64
_MAX_DIGITS = 18  # of a number that is asked for
_FARTHEST, _LEAST_SIDE = 4, 1e-4  # of a crop, in sizes of the image


class Answers:
    """Answers the page's questions, each given as a mapping of words. Raises InputError."""

    def __init__(
        self,
        catalog: Catalog,
        other: LabelStore | None = None,
        student: Classifier | None = None,
        smoothing: float = 0.0,
    ) -> None:
        self.catalog, self.other, self.student = catalog, other, student
        self.smoothing = smoothing
        self._typical: dict[str, Typical] = {}  # of the stores that were asked for

    @cached_property
    def _places(self) -> dict[str, int]:
        return {key: index for index, key in enumerate(self.catalog.source.keys)}

    def info(self, _words: Mapping[str, str]) -> dict[str, Any]:
        source = self.catalog.source
        return {
            "images": len(source),
            "classes": list(source.class_names),
            "titles": class_titles(source.class_names),
            "legends": self._legends(),
            "scores": list(self.catalog.scores),
            "scored": self.catalog.scored,
            "store": self.catalog.store.location,
            "other": None if self.other is None else self.other.location,
            "student": None if self.student is None else self.student.facts["model"],
            "grid": None if self.student is None else self._grid(self.student),
        }

    def list(self, words: Mapping[str, str]) -> dict[str, Any]:
        found = self.catalog.find(
            Query(
                labels=self._called(words["class"]) if words.get("class") else None,
                text=words.get("text", ""),
                sort=words.get("sort", "key"),
                descending=words.get("descending") == "1",
                offset=_number(words, "offset", math.inf, default=0),
                limit=_number(words, "limit", _MAX_LIMIT + 1, default=60),
            )
        )
        items = [self._line(index) for index in found.indices]
        return {"total": found.total, "scored": self.catalog.scored, "items": items}

    def item(self, words: Mapping[str, str]) -> dict[str, Any]:
        """All of one image: its label maps in both stores, the student's answer and tokens."""
        index = self._index(words)
        image = self._pixels(index)
        maps = {"labels": self.catalog.label_map(index)}
        if self.other is not None:
            maps["other"] = self.catalog.label_map(index, self.other)
        answer = None
        if self.student is not None:
            shown = _shown_to(self.student, self.catalog.source, index)
            answer = self.student.predict(shown, top=_GUESSES)[0].as_dict()["top"]
            if self.student.has_tokens:
                k = min(_TOP, self.student.num_classes)
                maps["student"] = token_map(self.student, shown, k)
        return {
            **self._line(index),
            "size": list(image.shape[:2]),
            "answer": answer,
            "maps": {name: found and _plain(found) for name, found in maps.items()},
        }

    def crop(self, words: Mapping[str, str]) -> dict[str, Any]:
        """The student's targets for a crop of an image: `x0`, `y0`, `x1`, `y1` and `grid`."""
        index = self._index(words)
        label_map = self.catalog.label_map(index)
        if label_map is None:
            raise InputError("this image has no label")
        try:
            sides = [float(words[name]) for name in ("x0", "y0", "x1", "y1")]
            box = Box(*sides)
        except (KeyError, ValueError):
            raise InputError("a crop needs numbers x0 < x1 and y0 < y1") from None
        if max(map(abs, sides)) > _FARTHEST or min(box.width, box.height) < _LEAST_SIDE:
            raise InputError(
                f"a crop lies within {_FARTHEST} sizes of the image and is at least {_LEAST_SIDE} wide"
            )
        side = max(_number(words, "grid", _MAX_GRID + 1, default=14), 1)
        target = token_targets(
            [label_map], [View.crop(box)], (side, side), smoothing=self.smoothing
        )
        dense = target.dense()[0, 1:].T.reshape(-1, side, side)
        dense[:, ~target.mask[0, 1:].reshape(side, side)] = 0  # no target there
        best = dense.topk(min(_TOP, len(dense)), 0)
        return _cells(best.values, best.indices, box)

    def picture(self, words: Mapping[str, str]) -> bytes:
        """The image as JPEG, at most `side` pixels wide and high."""
        side = max(_number(words, "side", _MAX_SIDE + 1, default=160), 1)
        picture = Image.fromarray(self._pixels(self._index(words)))
        picture.thumbnail((side, side))
        return _jpeg(picture)

    def word_sheet(self, words: Mapping[str, str]) -> bytes:
        """As JPEG, what the visual `words` of a `map` are like: "3,17"."""
        name, numbers = words.get("map", "labels"), words.get("words", "").split(",")
        store = self._stores().get(name)
        if store is None or not store.manifest.words:
            raise InputError("this map shows no visual words")
        wanted = [_number({"words": n}, "words", store.num_classes) for n in numbers[:_TOP]]
        if name not in self._typical:
            self._typical[name] = typical_patches(store, self.catalog.source.keys)
        places = self._places
        return _jpeg(
            draw_words(store, self._typical[name], lambda key: self._pixels(places[key]), wanted)
        )

    # -- what they share -------------------------------------------------------------------------

    def _called(self, text: str) -> Sequence[int]:
        """The classes of that name or title; where there is none, those whose title contains it."""
        names = self.catalog.source.class_names
        titles, wanted = class_titles(names), text.casefold()
        both = [
            (number, {name.casefold(), title.casefold()})
            for number, (name, title) in enumerate(zip(names, titles, strict=True))
        ]
        exact = [number for number, called in both if wanted in called]
        return exact or [n for n, called in both if any(wanted in name for name in called)]

    @staticmethod
    def _grid(student: Classifier) -> int:
        """Tokens on a side of the student's input."""
        return student.model.grid(student.preprocessing.image_size)[0]

    def _legends(self) -> dict[str, Any]:
        """What the classes of each map are called, and their colors."""
        stores = self._stores()
        names = {name: self._names(store) for name, store in stores.items()}
        if self.student is not None and self.student.has_tokens:
            names["student"] = self.student.class_names
        titles = {name: class_titles(known) for name, known in names.items()}
        return {
            name: {
                "titles": known,
                "colors": hex_colors(len(known), known),
                "words": name in stores and stores[name].manifest.words,
            }
            for name, known in titles.items()
        }

    def _stores(self) -> dict[str, LabelStore]:
        """By the name of their maps."""
        both = {"labels": self.catalog.store, "other": self.other}
        return {name: store for name, store in both.items() if store is not None}

    def _names(self, store: LabelStore) -> Sequence[str]:
        """A store's classes: as it names them, the images' where there are as many, or numbers."""
        source = self.catalog.source
        if store.manifest.names is not None:
            return store.manifest.names
        if store.num_classes == len(source.class_names):
            return source.class_names
        return default_names(store.num_classes)

    def _line(self, index: int) -> dict[str, Any]:
        scores = {name: float(values[index]) for name, values in self.catalog.scores.items()}
        return {
            "index": index,
            "key": self.catalog.source.keys[index],
            "class": int(self.catalog.labels[index]),
            "scores": {name: None if math.isnan(v) else v for name, v in scores.items()},
        }

    def _index(self, words: Mapping[str, str]) -> int:
        return _number(words, "index", len(self.catalog.source))

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        source = self.catalog.source
        return decode_picture(source.read(index), source.keys[index], source.rules)


def student_loss(catalog: Catalog, student: Classifier, index: int) -> float:
    """Cross-entropy of the student's class token with the image's class, in nats."""
    source = catalog.source
    image = _shown_to(student, source, index)
    with torch.inference_mode():
        output = student.output(student.preprocessing.pixels(image)[None])
    labels = class_labels(source, [index])
    if student.multi_label:
        return float(
            class_loss(output.logits, multi_hot(labels, student.num_classes), multi_label=True)
        )
    return float(F.cross_entropy(output.logits, labels.reshape(1, -1)[:, 0]))


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def _shown_to(student: Classifier, source: ImageSource, index: int) -> Pixels:
    return student.decode(source.read(index), source.keys[index], source.rules)


def _number(words: Mapping[str, str], name: str, end: float, default: int | None = None) -> int:
    """A whole number in [0, end)."""
    text = words.get(name, "" if default is None else str(default))
    plain = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
    if not plain or int(text) >= end:
        raise InputError(f"{name} must be a whole number below {end}, not {text[:40]!r}")
    return int(text)


def _plain(label_map: LabelMap) -> dict[str, Any]:
    return _cells(
        label_map.probabilities()[:_TOP].clamp(0, 1), label_map.classes[:_TOP], label_map.extent
    )


def _cells(probabilities: torch.Tensor, classes: torch.Tensor, extent: Box) -> dict[str, Any]:
    """The best classes of each cell, row by row: [cells][K] ids and probabilities."""
    return {
        "extent": extent.as_tuple(),
        "grid": list(classes.shape[1:]),
        "classes": classes.flatten(1).T.tolist(),
        "probabilities": [
            [round(p, 4) for p in cell] for cell in probabilities.flatten(1).T.tolist()
        ],
    }
