"""The warm-up of a training of another length than its recipe's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TypeVar

from tokenlabel.progress import console
from tokenlabel.runs.recipe import BaseRecipe

__all__ = ["warmed_up"]

R = TypeVar("R", bound=BaseRecipe)

_SHARE = 0.1  # of the training: the longest warm-up


def warmed_up(recipe: R, base: R, begun: R | None, settings: Iterable[str]) -> R:
    """The recipe with a warm-up that fits, where its length is not that of the recipe `base`.

    At most a tenth of the training, which is said; a run that goes on keeps what it was `begun` with,
    and one of the `settings` ("section.key=value") is left as it is.
    """
    schedule, unit = recipe.schedule, recipe.schedule.unit
    key = f"warmup_{unit}"
    length, usual = getattr(schedule, unit), getattr(base.schedule, unit)
    if length == usual or any(text.startswith(f"schedule.{key}=") for text in settings):
        return recipe
    before = getattr(schedule, key)
    longest = round(_SHARE * length, 6)
    warmup = min(before, int(longest) if unit == "updates" else longest)
    if begun is not None:
        warmup = getattr(begun.schedule, key)
    elif warmup < before:
        console.print(f"{unit} {usual} -> {length}: warm-up {before:g} -> {warmup:g} {unit}")
    return dataclasses.replace(recipe, schedule=dataclasses.replace(schedule, **{key: warmup}))
