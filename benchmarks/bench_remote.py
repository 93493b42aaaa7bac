"""Shards on a slow S3 store against the same shards on the local disk.

    python benchmarks/bench_remote.py images.tar [--latency 0.02] [--shards 8]

The photographs of a tar are written as WebDataset shards. A server in its own process, that of the
tests, answers each request after `--latency` seconds and counts bytes; `--endpoint` and `--bucket` name
another that holds the shards (moto's, MinIO). Said are the bytes of a first start and of a later one of
several ranks, and images a second of our loader with two workers, local and remote taking turns.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import sys
import tarfile
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "data"))
from s3 import Store

from tokenlabel.data.augment import Augmentation
from tokenlabel.data.loader import train_loader
from tokenlabel.data.open import open_source
from tokenlabel.data.source import ImageSource

RANKS = 4
WORKERS = 2


def serve(folder: Path, latency: float, pipe: Connection) -> None:
    store = Store(folder, latency)
    store.start()
    pipe.send(store.url)
    while pipe.recv() == "count":
        pipe.send(dict(store.sent))


def write_shards(images: str, folder: Path, count: int) -> None:
    source = open_source(images)
    for shard in range(count):
        with tarfile.open(folder / f"set-{shard:03d}.tar", "w") as tar:
            for index in range(shard, len(source), count):
                label = {"label": index % 10}
                for path, content in (
                    (f"{index:05d}.json", json.dumps(label).encode()),
                    (f"{index:05d}.jpg", source.read(index)),
                ):
                    info = tarfile.TarInfo(path)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def rank(url: str, number: int) -> None:
    os.environ |= {"RANK": str(number), "WORLD_SIZE": str(RANKS)}
    open_source(url)


def start(url: str) -> float:
    """Seconds until all ranks have opened the data."""
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=rank, args=(url, number)) for number in range(RANKS)]
    before = time.perf_counter()
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
        assert process.exitcode == 0
    return time.perf_counter() - before


def epoch(source: ImageSource) -> float:
    """Images a second, after the workers have begun."""
    loader = train_loader(
        source,
        Augmentation(policy="rand-m9-mstd0.5-inc1"),
        image_size=(224, 224),
        batch_size=25,
        workers=WORKERS,
    )
    rates = []
    for number in range(2):
        before, images = time.perf_counter(), 0
        for batch in loader.epoch(number):
            images += len(batch)
        rates.append(images / (time.perf_counter() - before))
    return rates[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", help="a folder or tar of photographs")
    parser.add_argument("--latency", type=float, default=0.02)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--endpoint")
    parser.add_argument("--bucket", default="bucket")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "shards"
        folder.mkdir()
        os.environ["TOKENLABEL_CACHE"] = f"{name}/cache"
        write_shards(options.images, folder, options.shards)
        total = sum(path.stat().st_size for path in folder.iterdir())
        pipe, other = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=serve, args=(folder, options.latency, other), daemon=True
        )
        server.start()
        endpoint = pipe.recv()

        def sent() -> int:
            pipe.send("count")
            return int(pipe.recv().get("bytes", 0))

        os.environ |= {
            "AWS_ENDPOINT_URL": options.endpoint or endpoint,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        url = f"s3://{options.bucket}/set-{{000..{options.shards - 1:03d}}}.tar"
        for what in ("first start", "later start"):
            before = sent()
            seconds = start(url)
            read = sent() - before
            print(
                f"{what} of {RANKS} ranks: {read / 1e3:,.0f} kB of {total / 1e6:.1f} MB"
                f" ({read / total:.2%}) in {seconds:.1f} s"
            )
        sources = {"local": open_source(f"{folder}/set-*.tar"), "remote": open_source(url)}
        rates: dict[str, list[float]] = {place: [] for place in sources}
        for _ in range(options.rounds):
            for place, source in sources.items():
                rates[place].append(epoch(source))
        for place, found in rates.items():
            print(
                f"{place}: {statistics.median(found):.0f} images a second"
                f" ({min(found):.0f} to {max(found):.0f})"
            )
        pairs = [b / a for a, b in zip(rates["local"], rates["remote"], strict=True)]
        print(
            f"remote / local: {statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"
        )
        pipe.send("end")


if __name__ == "__main__":
    main()
