"""What ends a run early: Ctrl-C, a cluster's scheduler, and the system where it kills a process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from types import FrameType, TracebackType
from typing import Any

from tokenlabel.errors import InputError
from tokenlabel.training.ranks import Ranks

__all__ = ["Preempted", "StopRequest", "killed_named"]

_REAPED = 0.2  # seconds until the exit code of a process that has just died is known


class Preempted(SystemExit):
    """The run was asked to stop, saved its state and can be continued by the same command.

    Its exit code is 128 + the signal's number, as the shell's.
    """


class StopRequest:
    """Notes SIGTERM and SIGINT instead of dying of them; a second one acts as it always does."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signal: int = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._note) for s in self.SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextmanager
def killed_named(workers: Sequence[BaseProcess], ranks: Ranks) -> Iterator[None]:
    """Turn the error of a killed loader worker, or of a lost rank, into one line that says so."""
    try:
        yield
    except (RuntimeError, OSError, EOFError):  # torch's error for both, or a worker's cut pipe
        for worker in workers:
            with suppress(RuntimeError):  # torch's handler of the worker's death may come only now
                worker.join(_REAPED)
        killed = [-code for worker in workers if (code := worker.exitcode or 0) < 0]
        if killed:
            number = killed[0]
            memory = " (by the system, where memory ran out: use fewer data.workers)"
            raise InputError(
                f"a process that loads images was killed by signal {number}"
                f"{memory if number == 9 else ''}: the same command goes on from the last"
                " checkpoint"
            ) from None
        if ranks.lost_one():
            raise InputError(
                f"rank {ranks.rank} stops, for another rank has ended: the same command goes"
                " on from the last checkpoint"
            ) from None
        raise
