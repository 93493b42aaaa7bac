"""`--set section.key=value`: values of a recipe that have no option of their own."""

from __future__ import annotations

from itertools import chain
from typing import Annotated

import tyro

__all__ = ["Settings", "all_of"]

# `--set a=1 b=2` and `--set a=1 --set b=2` say the same
Settings = Annotated[
    tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="set")
]


def all_of(settings: Settings) -> tuple[str, ...]:
    """The settings of all `--set`, in their order."""
    return tuple(chain.from_iterable(settings))
