"""All recipes by name, whatever they train: what `tokenlabel recipes` lists, shows and copies."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenlabel.errors import InputError, nearest
from tokenlabel.files import claim_file, write_atomically
from tokenlabel.recipes import registry, segmentation
from tokenlabel.runs.recipe import BaseRecipe
from tokenlabel.runs.recipe_file import to_yaml

__all__ = ["Entry", "catalog", "copy", "text"]


@dataclass(frozen=True)
class Entry:
    """A recipe and where its values come from."""

    recipe: BaseRecipe
    verb: Literal["train", "segment train"]
    """The verb that takes it by `--recipe`."""
    description: str
    """The recipe's docstring; its first line says what it is."""

    @property
    def title(self) -> str:
        return self.description.partition("\n")[0]


def catalog() -> dict[str, Entry]:
    """Every recipe by name: students first, those for images of one's own before the published."""
    students = {
        name: Entry(registry.get(name), "train", _doc(function))
        for name, (function, _) in sorted(registry.registered().items())
    }
    students = dict(sorted(students.items(), key=lambda item: bool(item[1].recipe.about.paper)))
    networks = {
        name: Entry(segmentation.get_segmentation_recipe(name), "segment train", _doc(function))
        for name, function in segmentation.RECIPES.items()
    }
    return students | networks


def text(name: str) -> str:
    """A recipe as YAML, every value of it, under its description. Raises InputError."""
    found = catalog()
    if name not in found:
        raise InputError(f"no recipe {name!r}{nearest(name, found)}: see `tokenlabel recipes list`")
    entry = found[name]
    comment = "".join(f"# {line}".rstrip() + "\n" for line in entry.description.splitlines())
    return f"{comment}#\n# tokenlabel {entry.verb} --recipe FILE\n\n{to_yaml(entry.recipe)}"


def copy(name: str, file: str | Path, *, overwrite: bool = False) -> Path:
    """Write a recipe to a YAML file, to change it there. Raises InputError, also where it exists."""
    content, file = text(name), Path(file)
    if file.suffix not in (".yaml", ".yml"):
        raise InputError(f"{file}: the name of a recipe's file ends in .yaml")
    claim_file(file, overwrite=overwrite)
    write_atomically(file, content)
    return file


def _doc(function: object) -> str:
    return inspect.getdoc(function) or ""
