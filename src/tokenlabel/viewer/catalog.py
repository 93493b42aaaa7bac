"""What can be browsed: images by class, by name, and sorted by what their labels say of them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelMap, LabelStore
from tokenlabel.labels.health import mean_entropy

__all__ = ["Catalog", "Found", "Query", "Score", "disagreement"]

Score = Callable[[int], float]
"""Of the image of an index; not a number where the image has no label."""


def disagreement(label_map: LabelMap, label: int) -> float:
    """The probability that the annotator gives to other classes than the true one: mean over cells."""
    is_it = (label_map.classes == label).float()
    return 1 - float((label_map.probabilities() * is_it).sum(0).mean())


@dataclass(frozen=True)
class Query:
    """Which images, in which order; `limit` of them from `offset` on."""

    labels: Collection[int] | None = None  # classes; None: all, and images without one
    text: str = ""  # a part of the key
    sort: str = "key"  # or the name of a score
    descending: bool = False
    offset: int = 0
    limit: int = 60


class Found(NamedTuple):
    total: int
    indices: list[int]


class Catalog:
    """The images of a source, with scores that a background thread works out.

    Nothing of an image is held but its key, class and scores: a few numbers each. Until all scores are
    known, sorting is among those that are.
    """

    def __init__(self, source: ImageSource, store: LabelStore) -> None:
        self.source, self.store = source, store
        self.labels = np.asarray(source.labels, dtype=np.int64)
        self.scores: dict[str, NDArray[np.float32]] = {}
        self._functions: dict[str, Score] = {}
        if store.num_classes == len(source.class_names) and not store.manifest.words:
            self.add_score("disagreement", self._disagreement)
        self.add_score("entropy", self._entropy)
        self.scored: dict[str, int] = {}  # images whose score is known, by its name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def add_score(self, name: str, score: Score) -> None:
        """A further number to sort by; before `start`."""
        self._functions[name] = score
        self.scores[name] = np.full(len(self.source), np.nan, np.float32)

    def start(self) -> None:
        """Begin to work out the scores."""
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def label_map(self, index: int, store: LabelStore | None = None) -> LabelMap | None:
        """The image's label in the catalog's store, or another one; None where it has none."""
        store, key = store or self.store, self.source.keys[index]
        return store[key] if key in store else None  # noqa: SIM401 (a store is no dict)

    def find(self, query: Query) -> Found:
        """The images of a query. Raises InputError where it names something unknown."""
        if query.sort != "key" and query.sort not in self.scores:
            raise InputError(f"cannot sort by {query.sort!r}")
        chosen = np.arange(len(self.source))
        if query.labels is not None:
            chosen = chosen[np.isin(self.labels, list(query.labels))]
        if query.text:
            keys, text = self.source.keys, query.text.casefold()
            chosen = chosen[[text in keys[i].casefold() for i in chosen.tolist()]]
        if query.sort != "key":
            values = self.scores[query.sort][chosen]
            known = ~np.isnan(values)
            chosen, values = chosen[known], values[known]
            chosen = chosen[np.argsort(-values if query.descending else values, kind="stable")]
        elif query.descending:
            chosen = chosen[::-1]
        part = chosen[query.offset : query.offset + query.limit]
        return Found(len(chosen), part.tolist())

    def _work(self) -> None:
        for name, function in self._functions.items():
            for index in range(len(self.source)):
                if self._stop.is_set():
                    return
                try:
                    self.scores[name][index] = function(index)
                except InputError:
                    continue  # a damaged record or image: its page says so
                finally:
                    self.scored[name] = index + 1

    def _entropy(self, index: int) -> float:
        label_map = self.label_map(index)
        if label_map is None:
            return math.nan
        return mean_entropy(label_map.probabilities(), label_map.num_classes)

    def _disagreement(self, index: int) -> float:
        label_map = self.label_map(index)
        if label_map is None:
            return math.nan
        return disagreement(label_map, int(self.labels[index]))
