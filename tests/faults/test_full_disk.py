"""A full disk is one line; when space is there again, the same command ends with the same bytes."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from harness import CASES, contents, differences, finish, run

WRITERS = [name for name, case in CASES.items() if case.output and not case.why_not]
QUICK = ("labels export",)
SIZES = (0, 8, 64, 256, 1024)  # kB left for the output
_TAKEN = ".taken"

usage = namedtuple("usage", ("free",))


class Disk:
    """A file system of a few kB (where root), else a limit on the size of each file."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.mounted = False

    def fill(self, left: int) -> None:
        """Leave `left` bytes."""
        size = f"size={max(left // 1024, 0) + 4}k"
        options = ("-o", f"remount,{size}") if self.mounted else ("-t", "tmpfs", "-o", size)
        source = () if self.mounted else ("tmpfs",)
        if os.geteuid() == 0:
            done = subprocess.run(["mount", *options, *source, self.place], check=False)
            self.mounted = done.returncode == 0 or self.mounted
            if done.returncode == 0:  # a disk has 4 kB at least: here they are taken
                (self.place / _TAKEN).write_bytes(bytes(4096))
        self.limit = None if self.mounted else left

    def before(self, *, told: bool) -> None:
        """In the process that runs the verb: `told` whether it can ask how much space there is.

        Where it cannot, another process has taken the space meanwhile.
        """
        if not told:
            shutil.disk_usage = lambda _: usage(free=1 << 50)
        if self.limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))

    def free(self) -> None:
        self.limit = None
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,size=1g", self.place], check=True)
            (self.place / _TAKEN).unlink()

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", self.place], check=True)


@contextlib.contextmanager
def disk(place: Path) -> Iterator[Disk]:
    place.mkdir()
    made = Disk(place)
    try:
        yield made
    finally:
        made.close()


def fill_loop(name: str, world: Path, place: Path, sizes: tuple[int, ...]) -> int:
    """Run a verb on disks of these sizes in kB, then free them; how many were too small."""
    case, undisturbed, refused = CASES[name], [], 0
    assert case.output is not None
    for number in range(2):
        (place / str(number)).mkdir()
        run(case.line(world, place / str(number)))
        undisturbed.append(contents(place / str(number) / case.output))
    for size in sizes:
        with disk(place / f"disk-{size}") as small:
            small.fill(size * 1024)
            words = case.line(world, small.place)
            ended = run(words, before=functools.partial(small.before, told=size == sizes[0]))
            fault = ended.fault(codes=(0, 1, 2))
            assert fault is None, f"{name} on {size} kB: {fault}"
            if ended.code == 2:
                refused += 1
                assert str(small.place) in ended.error, f"{name}: no path in {ended.error}"
                assert "space" in ended.error, f"{name}: {ended.error}"
            small.free()
            fault = finish(words)
            assert fault is None, f"{name} with space again after {size} kB: {fault}"
            wrong = differences(undisturbed, contents(small.place / case.output))
            assert not wrong, f"{name} differs after {size} kB in {wrong[:8]}"
    return refused


@pytest.mark.parametrize("name", QUICK)
def test_quick_verbs_on_a_full_disk(name: str, quick_world: Path, tmp_path: Path) -> None:
    assert fill_loop(name, quick_world, tmp_path, sizes=(0, 4)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_every_verb_that_writes_on_a_full_disk(name: str, world: Path, tmp_path: Path) -> None:
    assert fill_loop(name, world, tmp_path, sizes=SIZES) > 0
