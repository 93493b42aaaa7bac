"""Files that are either whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing", "sync", "write_atomically"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place as one step when the block ends.

    Readers see the old content or the new, also after a crash. Nothing is left where the block fails.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield aside
        sync(aside)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    aside.replace(path)
    sync(path.parent)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace a small file as one step; text is written as UTF-8."""
    with replacing(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def sync(path: Path) -> None:
    """Return once a file, or a folder's list of files, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
