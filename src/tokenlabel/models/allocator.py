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
_SETTINGS = {
    "M_MMAP_MAX": (-4, 0),  # large blocks come from the heap, too
    "M_TRIM_THRESHOLD": (-1, (1 << 31) - 1),  # bytes that stay free at its end
    "M_TOP_PAD": (-2, 64 << 20),  # bytes by which it grows
}


@cache
def keep_freed_memory() -> None:
    """Let this process keep up to 2 GB of freed memory; only glibc gives it back otherwise."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in _SETTINGS.values():
            mallopt(parameter, value)
