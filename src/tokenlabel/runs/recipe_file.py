"""Recipes as YAML files and as changes to single values, with errors a user can act on."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import yaml
from pydantic import TypeAdapter, ValidationError

from tokenlabel import supervision
from tokenlabel.errors import InputError, nearest
from tokenlabel.runs.recipe import BaseRecipe, Recipe
from tokenlabel.text import read_yaml

__all__ = [
    "begun_recipe",
    "differences",
    "flat",
    "from_mapping",
    "override",
    "read_recipe",
    "scaled",
    "to_mapping",
    "to_yaml",
]

R = TypeVar("R", bound=BaseRecipe)

ScaleRule = Literal["linear", "sqrt", "none"]


@functools.cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@overload
def read_recipe(path: str | Path) -> Recipe: ...
@overload
def read_recipe(path: str | Path, kind: type[R]) -> R: ...
def read_recipe(path: str | Path, kind: type[Any] = Recipe) -> Any:
    """The recipe of a YAML file. Raises InputError naming the key or value that does not fit."""
    path = Path(path)
    content = read_yaml(path, f"recipe {path}")
    return from_mapping(content or {}, str(path), kind)


def begun_recipe(output: Path, kind: type[R]) -> R | None:
    """The recipe of the run that is to go on in the folder `output`; None for a new one."""
    known = output / "recipe.yaml"
    return read_recipe(known, kind) if known.is_file() else None


def to_yaml(recipe: BaseRecipe) -> str:
    """Every value of the recipe, in the order of its definition."""
    return str(yaml.safe_dump(to_mapping(recipe), sort_keys=False, allow_unicode=True))


def to_mapping(recipe: BaseRecipe) -> dict[str, Any]:
    """The recipe as nested plain values, as they stand in JSON."""
    kind: Any = type(recipe)
    mapping: dict[str, Any] = _adapter(kind).dump_python(recipe, mode="json")
    return mapping


@overload
def from_mapping(content: Mapping[str, Any], where: str = ...) -> Recipe: ...
@overload
def from_mapping(content: Mapping[str, Any], where: str, kind: type[R]) -> R: ...
def from_mapping(content: Mapping[str, Any], where: str = "recipe", kind: Any = Recipe) -> Any:
    """The recipe of nested plain values; sections and keys that are absent take their defaults."""
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: a recipe is a mapping of sections, not {content!r}")
    if isinstance(content.get("supervision"), Mapping):
        content = {**content, "supervision": supervision.section(content["supervision"], where)}
    try:
        # read as JSON, where strictness lets a list stand for a tuple and nothing else for anything
        return _adapter(kind).validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        raise InputError(f"{where}: {_first_fault(error, kind)}") from None


def override(recipe: R, changes: Iterable[str]) -> R:
    """The recipe with values replaced by `section.key=value` texts; values are YAML."""
    content = to_mapping(recipe)
    # kinds first: a section's options are those of its kind, whatever the order of the changes
    for change in sorted(changes, key=lambda text: not text.startswith("supervision.kind=")):
        path, equals, text = change.partition("=")
        if not equals:
            raise InputError(f"{change!r}: write section.key=value, such as optimizer.lr=1e-3")
        *sections, key = path.strip().split(".")
        place = content
        for section in sections:
            if not isinstance(place.get(section), dict):
                raise InputError(f"{path}: no section {section!r}{nearest(section, place)}")
            place = place[section]
        try:
            value = read_yaml(text)
        except InputError:
            raise InputError(f"{change!r}: {text!r} is not a valid YAML value") from None
        if path.strip() == "supervision.kind":
            content["supervision"] = supervision.of_kind(place, value)
        else:
            place[key] = value
    return from_mapping(content, "recipe", type(recipe))


def scaled(recipe: Recipe, batch_size: int, rule: ScaleRule) -> Recipe:
    """The recipe at another total batch size, its learning rates multiplied by the rule's factor.

    "linear": by the ratio of batch sizes (Goyal et al. 2017); "sqrt": by its square root, the rule
    for Adam (Malladi et al. 2022); "none": not at all.
    """
    ratio = batch_size / recipe.schedule.batch_size
    factor = {"linear": ratio, "sqrt": ratio**0.5, "none": 1.0}[rule]
    schedule, optimizer = recipe.schedule, recipe.optimizer
    return dataclasses.replace(
        recipe,
        optimizer=dataclasses.replace(optimizer, lr=optimizer.lr * factor),
        schedule=dataclasses.replace(
            schedule,
            batch_size=batch_size,
            warmup_lr=schedule.warmup_lr * factor,
            min_lr=schedule.min_lr * factor,
        ),
    )


def differences(a: BaseRecipe, b: BaseRecipe) -> list[str]:
    """The paths, such as "optimizer.lr", of the values in which two recipes differ."""
    first, second = flat(a), flat(b)
    return sorted(key for key in {*first, *second} if first.get(key) != second.get(key))


def flat(recipe: BaseRecipe) -> dict[str, Any]:
    """Every value by its path."""

    def items(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in content.items():
            if isinstance(value, dict):
                yield from items(value, f"{prefix}{key}.")
            else:
                yield prefix + key, value

    return dict(items(to_mapping(recipe), ""))


def _first_fault(error: ValidationError, kind: type[Any]) -> str:
    """One line on the first thing wrong; an unknown key comes first, with the known names."""
    faults = error.errors(include_url=False)
    unknown = (f for f in faults if f["type"] == "unexpected_keyword_argument")
    fault = next(unknown, faults[0])
    path, holder = _without_kinds(fault["loc"], kind)
    if fault["type"] == "unexpected_keyword_argument":
        *sections, key = path
        inside = f" in section {'.'.join(sections)!r}" if sections else ""
        known = [f.name for f in fields(holder)]
        hint = nearest(key, known) or f": it has {', '.join(known)}"
        return f"unknown key {key!r}{inside}{hint}"
    if len(faults) > 1:  # the branches of a union: name the value once and all that is allowed
        path = path[:2]
    alike = [f["msg"] for f in faults if _without_kinds(f["loc"], kind)[0][:2] == path[:2]]
    wishes = "; ".join(dict.fromkeys(alike)).replace("Input should", "it must")
    return f"{'.'.join(path)} = {fault['input']!r}: {wishes[:1].lower()}{wishes[1:]}"


def _without_kinds(place: Sequence[str | int], kind: type[Any]) -> tuple[list[str], type[Any]]:
    """A fault's path, without the kinds of supervision that pydantic puts in it, and what holds it."""
    path: list[str] = []
    holder = inner = kind
    for part in map(str, place):
        if part in supervision.METHODS and path == ["supervision"]:
            inner = supervision.METHODS[part]
            continue
        path.append(part)
        holder = inner
        inner = type(getattr(holder(), part, None)) if is_dataclass(holder) else holder
    return path, holder
