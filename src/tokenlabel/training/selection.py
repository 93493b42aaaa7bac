"""Which checkpoint of a run is the best, and when no better one is waited for any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenlabel.runs.recipe import BaseRecipe

__all__ = ["Selection"]

_NONE = -1.0  # below every measure


class Selection:
    """What a run's validations have found so far."""

    def __init__(self, recipe: BaseRecipe) -> None:
        self.recipe = recipe
        self.measures: dict[str, float] = {}  # of the last validation
        self.recorded: dict[str, Any] = {}  # beside the best weights, by their measures
        self._best = _NONE
        self.stale = 0  # validations since the best one

    @property
    def best(self) -> float | None:
        """The best value of the recipe's `measure`; None before the first validation."""
        return None if self._best == _NONE else self._best

    def judge(self, measures: dict[str, float]) -> bool:
        """Take a validation's measures in; whether no weights before were as good."""
        kept = _of_kept_weights(measures)
        score = kept[self.recipe.measure]
        better = score > self._best
        self.measures = measures
        self.stale = 0 if better else self.stale + 1
        if better:
            self._best, self.recorded = score, self.recipe.recorded(kept)
        return better

    @property
    def hopeless(self) -> bool:
        """Whether validation has not improved for as long as the recipe waits."""
        patience = self.recipe.schedule.patience
        return patience is not None and self.stale >= patience

    def state(self) -> dict[str, Any]:
        """Plain values, for a checkpoint's progress."""
        return {
            "best": self._best,
            "stale": self.stale,
            "measures": self.measures,
            "recorded": self.recorded,
        }

    def load(self, progress: Mapping[str, Any]) -> None:
        """Go on with what `state` gave; older versions did not write all of it."""
        self._best, self.measures = progress["best"], progress["measures"]
        self.stale, self.recorded = progress.get("stale", 0), progress.get("recorded", {})


def _of_kept_weights(measures: Mapping[str, float]) -> dict[str, float]:
    """The measures of the weights' average, or of the weights where no average is kept."""
    which = "ema/" if any(name.startswith("ema/") for name in measures) else "val/"
    return {n.removeprefix(which): value for n, value in measures.items() if n.startswith(which)}
