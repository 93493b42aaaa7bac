"""Writers survive being killed, and end with the bytes of an undisturbed run."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tokenlabel.errors import InputError
from tokenlabel.labels import LabelMap, LabelStore, LabelStoreWriter
from tokenlabel.labels.shard import ShardWriter, shard_name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_an_interrupted_writer_goes_on_where_it_stopped(tmp_path, write_store, make_map) -> None:
    whole = contents(write_store("whole", count=10, shard_size=4))
    for stop in range(11):
        folder = tmp_path / f"stopped-{stop}"
        with (
            suppress(KeyboardInterrupt),
            LabelStoreWriter(folder, num_classes=20, shard_size=4) as writer,
        ):
            for number in range(stop):
                writer.add(f"cat/{number:04d}.jpg", make_map(number))
            raise KeyboardInterrupt
        with LabelStoreWriter(folder, num_classes=20, shard_size=4) as writer:
            assert (f"cat/{stop - 1:04d}.jpg" in writer) == (stop > 0)
            for number in range(10):
                writer.add(f"cat/{number:04d}.jpg", make_map(number))
        assert contents(folder) == whole


def test_a_torn_last_record_is_dropped(tmp_path) -> None:
    path = tmp_path / shard_name(0)
    shard = ShardWriter.claim(path)
    shard.append("a", b"first")
    shard.append("b", b"second")
    shard.release()
    part = path.with_name(path.name + ".part")
    whole = part.read_bytes()
    for cut in range(len(whole)):
        part.write_bytes(whole[:cut])
        again = ShardWriter.claim(path)
        assert again.keys in ([], ["a"])
        for key, payload in list({"a": b"first", "b": b"second"}.items())[len(again.keys) :]:
            again.append(key, payload)
        again.release()
        assert part.read_bytes() == whole


def test_a_finished_shard_ends_with_its_last_record(tmp_path) -> None:
    path = tmp_path / shard_name(0)
    shard = ShardWriter.claim(path)
    for key in "abc":
        shard.append(key, b"payload")
    shard.release()
    part = path.with_name(path.name + ".part")
    whole = part.read_bytes()
    part.write_bytes(whole + b"half a record")
    again = ShardWriter.claim(path)
    assert again.keys == ["a", "b", "c"]
    again.keep(2)
    again.finish()
    assert path.read_bytes() == whole[: len(whole) - (len(whole) - 8) // 3]


def test_a_shard_has_one_writer_at_a_time(tmp_path) -> None:
    first = ShardWriter.claim(tmp_path / shard_name(0))
    assert ShardWriter.claim(tmp_path / shard_name(0)) is None
    first.release()
    second = ShardWriter.claim(tmp_path / shard_name(0))
    assert second is not None
    second.finish()
    assert ShardWriter.claim(tmp_path / shard_name(0)) is None


def test_mistakes_of_the_caller(tmp_path, write_store, make_map) -> None:
    folder = write_store(shard_size=4)
    with pytest.raises(InputError, match="started with shard_size = 4, now it is 5"):
        LabelStoreWriter(folder, num_classes=20, shard_size=5)
    by_a, by_b = ({"model": "resnet18", "weights_sha256": digit * 64} for digit in "ab")
    LabelStoreWriter(tmp_path / "by-a", num_classes=20, annotator=by_a)
    told = r"made by another model, resnet18 \(weights a{12}\), now it is .*b{12}"
    with pytest.raises(InputError, match=told):
        LabelStoreWriter(tmp_path / "by-a", num_classes=20, annotator=by_b)
    with pytest.raises(InputError, match="complete"):
        LabelStoreWriter(folder, num_classes=20, shard_size=4).add("new", make_map())
    writer = LabelStoreWriter(tmp_path / "b", num_classes=20)
    writer.add("x", make_map())
    with pytest.raises(ValueError, match="added twice"):
        writer.add("x", make_map())
    with pytest.raises(ValueError, match="20 classes"):
        writer.add("y", make_map(num_classes=21))
    with pytest.raises(InputError, match="another process"):
        LabelStoreWriter(tmp_path / "b", num_classes=20)


def test_a_damaged_finished_shard_is_named(tmp_path: Path, make_map) -> None:
    writer = LabelStoreWriter(tmp_path, num_classes=20, shard_size=2)
    for number in range(3):
        writer.add(str(number), make_map())
    writer.__exit__(KeyboardInterrupt)
    shard = tmp_path / "shard-00000.tll"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"shard-00000.tll is damaged: .*; delete it"):
        LabelStoreWriter(tmp_path, num_classes=20, shard_size=2)


def _write(folder: Path, maps: list[LabelMap]) -> None:
    with LabelStoreWriter(folder, num_classes=20, shard_size=16) as writer:
        for number, label_map in enumerate(maps):
            writer.add(f"cat/{number:04d}.jpg", label_map)


def _write_and_die(folder: Path, maps: list[LabelMap], event: int, torn: float) -> None:
    """The `event`-th call that changes a file kills this process, a write being half done."""
    calls = itertools.count()

    def deadly(module: object, name: str) -> None:
        original = getattr(module, name)

        def call(*args):
            if next(calls) == event:
                if name == "pwrite":
                    original(args[0], args[1][: int(len(args[1]) * torn)], args[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args)

        setattr(module, name, call)

    for module, name in (
        (os, "pwrite"),
        (os, "ftruncate"),
        (os, "fsync"),
        (Path, "rename"),
        (Path, "replace"),
    ):
        deadly(module, name)
    _write(folder, maps)


def test_fifty_kills_lose_and_double_nothing(tmp_path, write_store, make_map) -> None:
    whole = contents(write_store("whole", count=150, shard_size=16))
    maps = [make_map(number) for number in range(150)]
    folder, rng = tmp_path / "killed", random.Random(0)
    fork = multiprocessing.get_context("fork")
    for _ in range(50):
        plan = (folder, maps, rng.randrange(9), rng.random())
        process = fork.Process(target=_write_and_die, args=plan)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert (folder / shard_name(2)).exists()  # the kills fell in several shards
    _write(folder, maps)
    left_by_kills = {path.name for path in folder.iterdir() if path.suffix == ".tmp"}
    assert {k: v for k, v in contents(folder).items() if k not in left_by_kills} == whole


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """The system refuses to write beyond `size` bytes of a file, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_a_store_that_resumes(tmp_path, write_store, make_map) -> None:
    whole = contents(write_store("whole", count=16, shard_size=16))
    folder, maps = tmp_path / "full", [make_map(number) for number in range(16)]
    with _largest_file(700), pytest.raises(InputError, match="no space left"):
        _write(folder, maps)
    with suppress(KeyboardInterrupt), LabelStoreWriter(folder, num_classes=20, shard_size=16) as w:
        assert 0 < sum(f"cat/{n:04d}.jpg" in w for n in range(16)) < 16
        raise KeyboardInterrupt
    _write(folder, maps)
    assert contents(folder) == whole
    assert len(LabelStore(folder)) == 16
