"""How verbs say what came of them: on the standard output, and by the first process alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from tokenlabel.progress import first_process

__all__ = ["SOME_LEFT_OUT", "left_out", "say", "say_next"]

SOME_LEFT_OUT = 3
"""The exit code where the work is done, but for some images."""


def say(line: str) -> None:
    """Print a result."""
    if first_process():
        print(line)


def say_next(*words: object) -> None:
    """Print the command that comes next, so that a shell can run it; None leaves an option out.

    `say_next("eval", ("--data", data), ("--split", None))`: an option stands with its value.
    """
    command = ["tokenlabel"]
    for word in words:
        pair = word if isinstance(word, tuple) else (word,)
        if None not in pair:
            command += map(str, pair)
    say(f"next: {shlex.join(command)}")


def left_out(counts: Mapping[str, int]) -> str:
    """ "; left out: 3 unreadable, 1 without a class", or nothing."""
    if not counts:
        return ""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "; left out: " + ", ".join(f"{count:,} {reason}" for reason, count in ordered)
