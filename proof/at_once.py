"""Several runs at a time: the processes that load their images, and what is said of each."""

from __future__ import annotations

import os
import sys

from tokenlabel.compare.record import Record


def loaders(workers: int) -> int:
    """Processes that load the images of each of so many runs: the cores that are left over."""
    return max((os.cpu_count() or 1) // workers - 1, 0)


def said(record: Record) -> None:
    print(
        f"{record.arm}, seed {record.seed}: {record.score:.2f} after {record.seconds / 60:.1f} min"
    )
    sys.stdout.flush()
