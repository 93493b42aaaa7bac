"""`tokenlabel recipes list | show | copy`: where the values of a training come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from tokenlabel.cli.said import say_next

__all__ = ["copy", "listed", "show"]


def listed() -> None:
    """List all recipes: name and what it is, by the verb that takes them.

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
    """Print a recipe as YAML: every value, under the description of where they come from.

    Args:
        name: A recipe of `tokenlabel recipes list`.
    """
    from tokenlabel.recipes import text

    print(text(name), end="")


def copy(
    name: Annotated[str, tyro.conf.Positional],
    file: Annotated[Path, tyro.conf.Positional],
    *,
    overwrite: bool = False,
) -> None:
    """Write a recipe to a YAML file, to change it there and train by it.

    Args:
        name: A recipe of `tokenlabel recipes list`.
        file: The file to write, NAME.yaml.
        overwrite: Replace a file that exists already.
    """
    from tokenlabel.recipes import catalog
    from tokenlabel.recipes import copy as write

    write(name, file, overwrite=overwrite)
    verb = catalog()[name].verb
    print(f"written to {file}")
    say_next(*verb.split(), ("--data", "DATA"), ("--recipe", file))
