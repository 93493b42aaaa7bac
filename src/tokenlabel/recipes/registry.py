"""Recipes by name."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable

from tokenlabel.errors import InputError, nearest
from tokenlabel.runs.recipe import Model, Recipe

__all__ = ["get", "names", "recipe", "registered", "smoke"]

_FOUND: dict[str, tuple[Callable[[], Recipe], Model]] = {}


def recipe(smoke: Model) -> Callable[[Callable[[], Recipe]], Callable[[], Recipe]]:
    """Register a function as the recipe of its name; `smoke` is a small model of the same family."""

    def register(function: Callable[[], Recipe]) -> Callable[[], Recipe]:
        _FOUND[function.__name__] = (function, smoke)
        return function

    return register


def names() -> list[str]:
    """The names of all recipes."""
    return sorted(registered())


def get(name: str) -> Recipe:
    """The recipe of a name. Raises InputError, with the nearest name, if there is none."""
    found = registered()
    if name not in found:
        raise InputError(
            f"no recipe {name!r}{nearest(name, found)}; there are: {', '.join(sorted(found))}"
        )
    return dataclasses.replace(found[name][0](), name=name)


def smoke(name: str) -> Recipe:
    """The recipe of a name, cut down to two updates of four images on a small model, on the CPU."""
    whole = get(name)
    return dataclasses.replace(
        whole,
        name=f"{name}_smoke",
        model=registered()[name][1],
        data=dataclasses.replace(whole.data, workers=0),
        schedule=dataclasses.replace(whole.schedule, batch_size=4, max_steps=2),
        engine=dataclasses.replace(
            whole.engine, device="cpu", precision="fp32", compile=False, device_batch=2
        ),
        trackers=(),
        log_every=1,
    )


def registered() -> dict[str, tuple[Callable[[], Recipe], Model]]:
    """Every recipe's function and small model, by name."""
    from tokenlabel import recipes

    for module in pkgutil.iter_modules(recipes.__path__):
        importlib.import_module(f"{recipes.__name__}.{module.name}")
    return _FOUND
