"""The parts of a data set, from folders or tars."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path


def unpacked(given: Path, part: str, target: Path) -> Path:
    """Class folders of a part (train or val) at `target`: a link to those given, or out of a tar."""
    if target.exists():
        return target
    found = sorted(given.glob(f"{part}*"))
    if not found:
        sys.exit(f"{given} has no {part}: it must hold train and val, folders or tars of them")
    target.parent.mkdir(parents=True, exist_ok=True)
    if found[0].is_dir():
        target.symlink_to(found[0].resolve())
        return target
    draft = target.with_name(f".{part}")
    with tarfile.open(found[0]) as archive:
        archive.extractall(draft, filter="data")
    inner = draft / part
    (inner if inner.is_dir() else draft).rename(target)
    return target
