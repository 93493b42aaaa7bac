"""Memory that one layer of a network has freed is kept for the next one, on CPUs.

glibc gives large blocks back to the system, which then clears every page anew for the next layer: up
to half of the time of a convolutional network without gradients, on a virtual machine.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

__all__ = ["keep_freed_memory"]

# parameters of glibc's mallopt and their values
_SETTINGS = (
    (-4, 0),  # M_MMAP_MAX: large blocks come from the heap, too
    (-1, (1 << 31) - 1),  # M_TRIM_THRESHOLD: bytes that stay free at its end
    (-2, 64 << 20),  # M_TOP_PAD: bytes by which it grows
)


@cache
def keep_freed_memory() -> None:
    """Let this process keep up to 2 GB of freed memory; only glibc gives it back otherwise."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in _SETTINGS:
            mallopt(parameter, value)
