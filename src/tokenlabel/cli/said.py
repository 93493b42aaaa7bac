"""What several verbs say when they are done."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["left_out"]


def left_out(counts: Mapping[str, int]) -> str:
    """ "; left out: 3 unreadable, 1 without a class", or nothing."""
    if not counts:
        return ""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "; left out: " + ", ".join(f"{count:,} {reason}" for reason, count in ordered)
