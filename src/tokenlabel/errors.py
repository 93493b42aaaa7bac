"""Errors that a user can fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "nearest"]


class InputError(ValueError):
    """Input that cannot be used: one line that says what is wrong and how to fix it.

    The command line prints the message alone and exits with code 2; a library caller catches it as
    a ValueError.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """ " (did you mean X?)" for the known name most like `word`, or "" where none is near.

    Numbers, such as ImageNet's ids, are all alike: none of them is meant.
    """
    if sum(map(str.isdigit, word)) > len(word) / 2:
        return ""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
