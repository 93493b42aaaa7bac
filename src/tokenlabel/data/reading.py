"""Reading bytes that may fail for a moment: a network drive that is busy, a remote store."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from tokenlabel.errors import InputError
from tokenlabel.progress import console

__all__ = ["StorageError", "read_patiently"]

_PAUSES = (0.1, 0.5, 2.0)  # seconds before each further attempt
_REMOTE_PAUSES = (*_PAUSES, 5.0, 10.0, 20.0, 30.0)  # servers are started again, networks come back
_SAID = 5.0  # s: a pause that users may wonder about
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
    """What `read` returns, after some further attempts where an error may pass: for `remote` storage
    during a minute, which is said.

    Raises InputError naming `what` for a file that cannot be read (missing, not permitted), and
    StorageError where the storage still fails after the last attempt.
    """
    pauses = _REMOTE_PAUSES if remote else _PAUSES
    for pause in (*pauses, None):
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
                    f"cannot read {what}: {_line(error)}; tried {len(pauses) + 1} times: run the same"
                    " command again when the storage answers"
                ) from error
            if pause >= _SAID:
                console.print(
                    f"{what} cannot be read ({_line(error)}): trying again in {pause:g} s",
                    soft_wrap=True,
                    markup=False,
                )
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _may_pass(error: Exception, remote: bool) -> bool:
    if isinstance(error, InputError) or getattr(error, "errno", None) == errno.EINVAL:
        return False  # EINVAL: a remote file is shorter than it was
    if isinstance(error, (TimeoutError, ConnectionError)):
        return True
    # remote file systems raise errors of their own libraries
    return remote or (isinstance(error, OSError) and error.errno in _PASSING)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
