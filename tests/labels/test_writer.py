"""Writers survive being killed, and end with the bytes of an undisturbed run."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore, LabelStoreWriter
from tokenlabel.labels.shard import ShardWriter, shard_name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_an_interrupted_writer_goes_on_where_it_stopped(tmp_path, write_store, make_map) -> None:
    whole = contents(write_store("whole", count=10, shard_size=4))
    for stop in range(11):
        folder = tmp_path / f"stopped-{stop}"
        writer = LabelStoreWriter(folder, num_classes=20, shard_size=4)
        for number in range(stop):
            writer.add(f"cat/{number:04d}.jpg", make_map(number))
        del writer  # neither closed nor left: as if it had died
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
    with pytest.raises(InputError, match="begun with shard_size = 4, now it is 5"):
        LabelStoreWriter(folder, num_classes=20, shard_size=5)
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


_SLOW_WRITER = """
import sys, time
sys.path.insert(0, {tests!r})
from conftest import make_map
from tokenlabel.labels import LabelStoreWriter
maps = [make_map(n) for n in range(60)]
print("ready", flush=True)
with LabelStoreWriter({folder!r}, num_classes=20, shard_size=16) as writer:
    for number, label_map in enumerate(maps):
        writer.add(f"cat/{{number:04d}}.jpg", label_map)
        time.sleep(0.002)
"""


@pytest.mark.slow
def test_fifty_kills_lose_and_double_nothing(tmp_path, write_store) -> None:
    whole = contents(write_store("whole", count=60, shard_size=16))
    rng = random.Random(0)
    code = _SLOW_WRITER.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "killed"))
    for _ in range(50):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert contents(tmp_path / "killed") == whole


_FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
sys.path.insert(0, {tests!r})
from conftest import make_map
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStoreWriter
try:
    with LabelStoreWriter({folder!r}, num_classes=20, shard_size=16) as writer:
        for number in range(16):
            writer.add(f"cat/{{number:04d}}.jpg", make_map(number))
except InputError as error:
    sys.exit(7 if "no space left" in str(error) else 8)
"""


def test_a_full_disk_leaves_a_store_that_resumes(tmp_path, write_store, make_map) -> None:
    whole = contents(write_store("whole", count=16, shard_size=16))
    folder = tmp_path / "full"
    code = _FULL_DISK.format(tests=str(Path(__file__).parent), folder=str(folder))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
    with LabelStoreWriter(folder, num_classes=20, shard_size=16) as writer:
        assert 0 < sum(f"cat/{n:04d}.jpg" in writer for n in range(16)) < 16
        for number in range(16):
            writer.add(f"cat/{number:04d}.jpg", make_map(number))
    assert contents(folder) == whole
    assert len(LabelStore(folder)) == 16
