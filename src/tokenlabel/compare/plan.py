"""The runs of a comparison, each made once: interrupted, the same call goes on."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from tokenlabel.compare.comparison import Comparison
from tokenlabel.compare.record import Record, read_record, write_record
from tokenlabel.errors import InputError

__all__ = ["Job", "Plan", "compare", "make_records", "slug"]


@dataclass(frozen=True)
class Job:
    """A run that leaves a record: `run` trains and judges it, unless `file` holds its record.

    With several workers `run` is sent to another process, so it must be picklable.
    """

    arm: str
    seed: int
    file: Path
    run: Callable[[], Record]

    @property
    def log(self) -> Path:
        """What its process prints, where it is not this one."""
        return self.file.with_suffix(".log")

    def record(self) -> Record:
        """The record that is there. Raises InputError where it is of another run."""
        found = read_record(self.file)
        if (found.arm, found.seed) != (self.arm, self.seed):
            raise InputError(f"{self.file} is of {found.arm}, seed {found.seed}: remove it")
        return found


@dataclass(frozen=True)
class Plan:
    """Arms, the baseline first and the one in question last, each trained with every seed.

    `run` trains and judges one of them. Seeds are paired: a seed gives every arm the same first
    weights and the same order of images. Records are kept in `folder`.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    run: Callable[[str, int], Record]
    folder: Path


def compare(plan: Plan, made: Callable[[Record], object] | None = None) -> Comparison:
    """Make the runs that have no record yet, seed by seed, and read all. Raises InputError.

    `made` is called with each new record.
    """
    if len(plan.arms) < 2 or len({slug(arm) for arm in plan.arms}) < len(plan.arms):
        raise InputError("a comparison needs two arms of different names, or more")
    if not plan.seeds or len(set(plan.seeds)) < len(plan.seeds):
        raise InputError("a comparison needs seeds, each once")
    jobs = [
        Job(arm, seed, plan.folder / f"{slug(arm)}-{seed}.json", _Run(plan.run, arm, seed))
        for seed in plan.seeds
        for arm in plan.arms
    ]
    return Comparison(plan.arms, tuple(make_records(jobs, made=made)))


def make_records(
    jobs: Sequence[Job], workers: int = 1, made: Callable[[Record], object] | None = None
) -> list[Record]:
    """The records of all jobs, in order; those that are missing are made, `workers` at a time.

    Several are made each in a process of its own, which has its share of the processor's cores.
    """
    missing = [job for job in jobs if not job.file.exists()]
    for job in jobs:
        if job not in missing:
            job.record()  # what does not belong is refused before hours of work
    if workers == 1 or len(missing) < 2:
        for job in missing:
            write_record(job.file, job.run())
            if made is not None:
                made(job.record())
    else:
        _in_processes(missing, workers, made)
    return [job.record() for job in jobs]


def slug(arm: str) -> str:
    """An arm's name as a part of a path."""
    return "-".join(re.findall(r"[a-z0-9]+", arm.lower()))


@dataclass(frozen=True)
class _Run:
    """One run of a plan, without arguments."""

    run: Callable[[str, int], Record]
    arm: str
    seed: int

    def __call__(self) -> Record:
        return self.run(self.arm, self.seed)


def _in_processes(
    jobs: Sequence[Job], workers: int, made: Callable[[Record], object] | None
) -> None:
    threads = max(1, (os.cpu_count() or 1) // workers)
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawned, _begin, (threads,)) as pool:
        waiting: dict[Future[None], Job] = {pool.submit(_make, job): job for job in jobs}
        try:
            for done in as_completed(waiting):
                done.result()
                if made is not None:
                    made(waiting[done].record())
        except BrokenProcessPool:
            raise InputError(
                "a process of the comparison was killed, perhaps for want of memory: run it again with"
                " fewer workers, and it goes on"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    """In each process of the pool, first."""
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Where the process that started this one is killed, stop as on its signal: the run is saved."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _make(job: Job) -> None:
    """In a process of the pool: what is printed goes to the job's log."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
        write_record(job.file, job.run())
