"""Reading bytes that may fail for a moment: a network drive that is busy, a remote store."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from tokenlabel.errors import InputError

__all__ = ["StorageError", "read_patiently"]

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


def _may_pass(error: Exception, remote: bool) -> bool:
    if isinstance(error, InputError):
        return False
    if isinstance(error, (TimeoutError, ConnectionError)):
        return True
    # remote file systems raise errors of their own libraries
    return remote or (isinstance(error, OSError) and error.errno in _PASSING)
