"""Reading bytes that may fail for a moment: a network drive that is busy, a remote store."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from tokenlabel.errors import InputError

__all__ = ["StorageError", "file_version", "files_version", "read_patiently"]

_PAUSES = (0.1, 0.5, 2.0)  # seconds before each further attempt
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_PASSING = {
    errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT,
    errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.EMFILE, errno.ENFILE, errno.EREMOTEIO,
}  # fmt: skip


T = TypeVar("T")


class StorageError(InputError):
    """The place where images lie does not answer: no fault of the image, which is not left out."""


def read_patiently(read: Callable[[], T], what: str, *, remote: bool = False) -> T:
    """What `read` returns, after up to three further attempts where an error may pass.

    Raises InputError naming `what` for a file that cannot be read (missing, not permitted), and
    StorageError where the storage still fails after the last attempt.
    """
    for pause in (*_PAUSES, None):
        try:
            return read()
        except _PERMANENT as error:
            raise InputError(f"cannot read {what}: {error.strerror or error}") from error
        except Exception as error:
            if not _may_pass(error, remote):
                if isinstance(error, OSError):
                    raise InputError(f"cannot read {what}: {error.strerror or error}") from error
                raise
            if pause is None:
                raise StorageError(
                    f"cannot read {what}: {error}; tried {len(_PAUSES) + 1} times: run the same"
                    " command again when the storage answers"
                ) from error
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def file_version(location: str) -> str:
    """Size and time of the last change of a file, or a remote one's size and tag. Raises InputError."""
    if "://" not in location:
        status = read_patiently(Path(location).stat, location)
        return f"{status.st_size} {status.st_mtime_ns}"
    import fsspec

    def ask() -> dict[str, object]:
        filesystem, path = fsspec.core.url_to_fs(location)
        facts: dict[str, object] = filesystem.info(path)
        return facts

    facts = read_patiently(ask, location, remote=True)
    names = ("size", "ETag", "etag", "LastModified", "mtime", "last_modified")
    return " ".join(str(facts[name]) for name in names if facts.get(name))


def files_version(locations: Iterable[str]) -> str:
    """sha256 (hex) of the versions of several files."""
    digest = hashlib.sha256()
    for location in locations:
        digest.update(f"{file_version(location)}\0".encode())
    return digest.hexdigest()


def _may_pass(error: Exception, remote: bool) -> bool:
    if isinstance(error, InputError):
        return False
    if isinstance(error, (TimeoutError, ConnectionError)):
        return True
    # remote file systems raise errors of their own libraries
    return remote or (isinstance(error, OSError) and error.errno in _PASSING)
