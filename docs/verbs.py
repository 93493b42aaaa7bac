"""mkdocs hook: the page of all verbs, from the help that each prints."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

PLACE = "<!-- every verb -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    return markdown.replace(PLACE, every_verb()) if PLACE in markdown else markdown


def every_verb() -> str:
    """A section for each verb, in the order of `tokenlabel --help`."""
    from tokenlabel.cli.main import VERBS

    return "\n\n".join(
        f"## {verb}\n\n{line}\n\n```text\n{help_of(verb)}\n```" for verb, (_, line) in VERBS.items()
    )


def help_of(verb: str) -> str:
    """What `tokenlabel VERB --help` prints."""
    from tokenlabel.cli.main import main

    printed = io.StringIO()
    os.environ["COLUMNS"] = "100"
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*verb.split(), "--help"])
    return printed.getvalue().strip()
