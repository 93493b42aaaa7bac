"""The index of a label store of very many records: building, opening, finding, sharing.

    python benchmarks/bench_index.py [--records 100000000] [--folder FOLDER]

A hundred million records take 6 GB of disk in the folder, twice that while they are built; all is
removed at the end. Keys are those of ImageNet's form. Shards are named but not there: opening a store
touches none. Each figure comes from a process of its own; finding is timed on random keys, on one
thread, once for warm pages.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tokenlabel.labels import LabelStore
from tokenlabel.labels.index import FILE_NAME
from tokenlabel.labels.index_writer import IndexWriter
from tokenlabel.labels.manifest import Manifest, ShardInfo

SHARD = 10_000
PIECE = 10 * SHARD
FINDS = 100_000
WORKERS = 4


SYNSETS = [f"n{number:08d}" for number in range(21841)]


def key(number: int) -> str:
    synset = SYNSETS[number % len(SYNSETS)]
    return f"train/{synset}/{synset}_{number}.JPEG"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_281_167)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        seconds, peak, size = alone(build, folder, options.records)
        print(
            f"{options.records:,} records: built in {seconds:.0f} s with {peak / 1e6:.0f} MB;"
            f" {size / 1e9:.2f} GB, {size / options.records:.1f} bytes a record"
        )
        seconds, before, after = alone(opened, folder)
        print(
            f"opened in {seconds:.3f} s; resident {after / 1e6:.0f} MB, of which"
            f" {(after - before) / 1e6:.1f} MB by opening"
        )
        with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
            found = pool.starmap(find, [(folder, seed) for seed in range(WORKERS)])
        for seconds, missing, resident, private in found:
            print(
                f"worker: {1e6 * seconds:.1f} us a key found, {1e6 * missing:.1f} us a key that is"
                f" not there; resident {resident / 1e6:.0f} MB, {private / 1e6:.0f} MB its own"
            )


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def build(folder: Path, records: int) -> tuple[float, int, int]:
    """Seconds, peak memory and size of the file."""
    aside = folder / "aside"
    aside.mkdir()
    start = time.perf_counter()
    index = IndexWriter(aside)
    for first in range(0, records, PIECE):
        numbers = range(first, min(first + PIECE, records))
        index.extend([key(n) for n in numbers], [n % SHARD * 2100 for n in numbers])
    path = folder / FILE_NAME
    sha256 = index.write(path)
    seconds = time.perf_counter() - start
    for file in aside.iterdir():
        file.unlink()
    shards = [
        ShardInfo(
            file=f"shard-{n:05d}.tll", records=min(SHARD, records - n * SHARD), bytes=0, sha256=""
        )
        for n in range(-(-records // SHARD))
    ]
    Manifest(num_classes=1000, complete=True, shards=tuple(shards), index_sha256=sha256).save(
        folder
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return seconds, peak, path.stat().st_size


def opened(folder: Path) -> tuple[float, int, int]:
    """Seconds, and resident memory before and after."""
    before = status()["Rss"]
    start = time.perf_counter()
    store = LabelStore(folder)
    seconds = time.perf_counter() - start
    assert len(store)
    return seconds, before, status()["Rss"]


def find(folder: Path, seed: int) -> tuple[float, float, int, int]:
    """Seconds a key that is there, and one that is not; resident memory, and what is not shared."""
    store = LabelStore(folder)
    numbers = np.random.default_rng(seed).integers(len(store), size=FINDS)
    keys = [key(number) for number in numbers.tolist()]
    found = all(key in store for key in keys)  # brings the pages in
    start = time.process_time()
    found = all(key in store for key in keys) and found
    middle = time.process_time()
    missing = any(f"{key}x" in store for key in keys)
    end = time.process_time()
    assert found
    assert not missing
    memory = status()
    private = memory["Private_Clean"] + memory["Private_Dirty"]
    return (middle - start) / FINDS, (end - middle) / FINDS, memory["Rss"], private


def status() -> dict[str, int]:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


if __name__ == "__main__":
    main()
