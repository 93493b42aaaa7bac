"""What several verbs say when they are done."""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["first", "left_out"]


def first() -> bool:
    """Whether this process is the one of a torchrun that speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def left_out(counts: Mapping[str, int]) -> str:
    """ "; left out: 3 unreadable, 1 without a class", or nothing."""
    if not counts:
        return ""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "; left out: " + ", ".join(f"{count:,} {reason}" for reason, count in ordered)
