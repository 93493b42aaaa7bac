"""Errors that may pass are tried again; others are told at once."""

from __future__ import annotations

import errno

import pytest

from tokenlabel.data import reading
from tokenlabel.data.reading import StorageError, read_patiently
from tokenlabel.errors import InputError


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(reading.time, "sleep", waited.append)
    return waited


class Flaky:
    """Fails with `errors`, one a call, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> bytes:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return b"image"


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), TimeoutError(), ConnectionResetError()]
)
def test_an_error_that_may_pass_is_tried_again(error: Exception, pauses: list[float]) -> None:
    flaky = Flaky(error, error)
    assert read_patiently(flaky, "a.jpg") == b"image"
    assert flaky.calls == 3
    assert pauses == [0.1, 0.5]  # longer each time


def test_storage_that_stays_silent_is_no_fault_of_the_image(pauses: list[float]) -> None:
    flaky = Flaky(*[OSError(errno.ESTALE, "Stale file handle")] * 9)
    with pytest.raises(
        StorageError, match=r"cannot read a.jpg: .*Stale file handle.*tried 4 times"
    ):
        read_patiently(flaky, "a.jpg")
    assert flaky.calls == 4


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), PermissionError(13, "no")])
def test_a_file_that_cannot_be_read_is_said_at_once(error: Exception, pauses: list[float]) -> None:
    with pytest.raises(InputError, match=r"^cannot read a.jpg: [Nn]o") as refused:
        read_patiently(Flaky(error), "a.jpg", remote=True)
    assert not isinstance(refused.value, StorageError)
    assert not pauses


def test_remote_libraries_have_errors_of_their_own(pauses: list[float]) -> None:
    class ClientError(Exception):
        pass

    assert read_patiently(Flaky(ClientError()), "s3://b/a.tar", remote=True) == b"image"
    with pytest.raises(ClientError):
        read_patiently(Flaky(ClientError()), "a.tar")
