"""What torchrun tells a process of the others: one process alone where it started none."""

from __future__ import annotations

import os

__all__ = ["decoding_threads", "local_world", "rank_and_world"]


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are, on all machines."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def local_world() -> int:
    """How many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def decoding_threads() -> int:
    """This process's share of the machine's cores, for work that threads do beside each other."""
    return max((os.cpu_count() or 1) // local_world(), 1)
