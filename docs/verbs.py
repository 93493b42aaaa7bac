"""mkdocs hook: the page of all verbs, from the help that each prints, and that of all recipes."""

from __future__ import annotations

import contextlib
import io
import os
import textwrap
from typing import Any

_WIDTH = 100  # letters of a line, as wide as the site shows


def on_page_markdown(markdown: str, **_: Any) -> str:
    for place, made in (
        ("<!-- every verb -->", every_verb),
        ("<!-- every recipe -->", every_recipe),
    ):
        if place in markdown:
            markdown = markdown.replace(place, made())
    return markdown


def every_verb() -> str:
    """A section for each verb, in the order of `tokenlabel --help`."""
    from tokenlabel.cli.main import VERBS

    return "\n\n".join(
        f"## {verb}\n\n{line}\n\n```text\n{help_of(verb)}\n```" for verb, (_, line) in VERBS.items()
    )


def every_recipe() -> str:
    """A table of all recipes, for each verb that takes them."""
    from tokenlabel.recipes import catalog

    entries = catalog()
    lines = []
    for verb in dict.fromkeys(entry.verb for entry in entries.values()):
        lines += [
            f"## For `{verb}`",
            "",
            "| recipe | what it is | on | result |",
            "|---|---|---|---|",
        ]
        for name, entry in entries.items():
            about = entry.recipe.about
            if entry.verb == verb:
                lines.append(f"| `{name}` | {entry.title} | {about.hardware} | {about.accuracy} |")
        lines.append("")
    return "\n".join(lines)


def help_of(verb: str) -> str:
    """What `tokenlabel VERB --help` prints."""
    from tokenlabel.cli.main import main

    printed = io.StringIO()
    os.environ["COLUMNS"] = str(_WIDTH)
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*verb.split(), "--help"])
    lines = printed.getvalue().strip().splitlines()
    return "\n".join(textwrap.fill(line, _WIDTH) if len(line) > _WIDTH else line for line in lines)
