"""`tokenlabel recipes list | show | copy`: where the values of a training come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from tokenlabel.cli.said import say_next

__all__ = ["copy", "listed", "show"]


def listed() -> None:
    """List all recipes, by the verb that uses them.

    tokenlabel train --data photos --recipe NAME
    """
    from tokenlabel.recipes import catalog

    entries = catalog()
    width = max(map(len, entries)) + 2
    for verb in dict.fromkeys(entry.verb for entry in entries.values()):
        print(f"tokenlabel {verb} --recipe NAME")
        for name, entry in entries.items():
            if entry.verb == verb:
                print(f"  {name:<{width}}{entry.title}")
        print()
    print(
        "`tokenlabel recipes show NAME` prints all values, where they come from and what to expect."
    )


def show(name: Annotated[str, tyro.conf.Positional]) -> None:
    """Print a recipe as YAML, with a description of where its values come from.

    Args:
        name: Name of a recipe (see `tokenlabel recipes list`).
    """
    from tokenlabel.recipes import text

    print(text(name), end="")


def copy(
    name: Annotated[str, tyro.conf.Positional],
    file: Annotated[Path, tyro.conf.Positional],
    *,
    overwrite: bool = False,
) -> None:
    """Copy a recipe to a YAML file, so that you can edit it.

    Args:
        name: Name of a recipe (see `tokenlabel recipes list`).
        file: File to write, NAME.yaml.
        overwrite: Overwrite an existing file.
    """
    from tokenlabel.recipes import catalog
    from tokenlabel.recipes import copy as write

    write(name, file, overwrite=overwrite)
    verb = catalog()[name].verb
    print(f"written to {file}")
    say_next(*verb.split(), ("--data", "DATA"), ("--recipe", file))
