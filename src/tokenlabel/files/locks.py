"""Locks between processes, which die with their holder."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tokenlabel.errors import InputError
from tokenlabel.files.writing import NO_ACCESS, NO_SPACE, alive, explained

__all__ = ["Locked", "lock_file", "locked"]

LOCK = ".lock"
_WAIT_FOR_CHILDREN = 15.0  # s: a killed process's loader workers notice within 5 s


class Locked(InputError):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold `path` alone, a folder or a file, until the block ends or this process dies.

    `what` names it in messages ("the run", "the label store"). The lock is `.lock` in a folder,
    `<name>.lock` beside a file, and is gone when it is released. Raises `Locked`, an InputError that
    says who holds it and since when; a lock whose holder died is taken over. Raises InputError on
    file systems without locks.
    """
    import filelock

    file = lock_file(path)
    lock = filelock.FileLock(file, is_singleton=False)
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            host, pid, since = _holder(file)
            if host != socket.gethostname() or pid is None or alive(pid):
                raise Locked(
                    f"{what} {path} is in use by process {pid or '?'} on {host or 'a machine'}"
                    f" since {since or 'some time'}: wait for it, or choose another folder"
                ) from None
            # the holder was killed, and its child processes, who share the lock, are about to notice
            try:
                lock.acquire(timeout=_WAIT_FOR_CHILDREN)
            except filelock.Timeout:
                raise Locked(
                    f"{what} {path} is held by child processes of process {pid}, which was killed:"
                    " end them first"
                ) from None
    except OSError as error:
        if error.errno in NO_SPACE | NO_ACCESS:
            raise InputError(explained(error, path, 0)) from error
        raise InputError(
            f"cannot lock {path} ({error.strerror}): choose a place on a file system that has locks"
        ) from error
    try:
        with suppress(OSError):  # the names are for messages only; the lock itself is the system's
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write_text(f"{socket.gethostname()}\n{os.getpid()}\n{since}\n")
        yield
    finally:
        with suppress(OSError):  # gone before it is released, so that no other holder loses his
            file.unlink()
        lock.release()


def lock_file(path: Path) -> Path:
    """`.lock` in a folder, `<name>.lock` beside a file."""
    return path / LOCK if path.is_dir() else path.with_name(path.name + LOCK)


def _holder(file: Path) -> tuple[str | None, int | None, str | None]:
    """(host, process, since when) of whoever holds a lock, as far as the file says."""
    try:
        host, pid, since = file.read_text(errors="replace").splitlines()[:3]
        return host, int(pid), since
    except (OSError, ValueError):
        return None, None, None
