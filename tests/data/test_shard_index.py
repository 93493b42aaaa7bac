"""Tars are walked once, by their headers; what is kept is never stale; remote storage may come back."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from s3 import Store

from tokenlabel.data import archives, reading
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.loader import eval_loader
from tokenlabel.data.open import open_source
from tokenlabel.data.ranges import Ranges
from tokenlabel.data.reading import StorageError
from tokenlabel.data.shard_index import scan_shard, write_sidecar
from tokenlabel.errors import InputError

SHOWN = Preprocessing((16, 16), 0.9, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENLABEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reading, "_REMOTE_PAUSES", (0.01,))


def photo(seed: int, size: int) -> bytes:
    """A JPEG; one of noise and 200 pixels has about 35 kB."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def shards(make: type, folder: Path, count: int = 2, images: int = 6, size: int = 24) -> Path:
    for shard in range(count):
        files: dict[str, bytes] = {}
        for image in range(images):
            number = shard * images + image
            files[f"{number:04d}.cls"] = str(number % 3).encode()
            files[f"{number:04d}.jpg"] = photo(number, size)
        make.write_tar(folder / f"set-{shard:03d}.tar", files)
    return folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    s3fs = pytest.importorskip("s3fs")
    s3fs.S3FileSystem.clear_instance_cache()
    (tmp_path / "bucket").mkdir()
    store = Store(tmp_path / "bucket")
    store.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield store
    store.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_start_reads_headers_once_and_then_nothing(make: type, store: Store) -> None:
    shards(make, store.folder, images=12, size=420)  # 130 kB an image
    total = sum(path.stat().st_size for path in store.folder.iterdir())
    first = open_source("s3://bucket/set-{000..001}.tar")
    heads = (
        len(first) * archives._HEADS[0]
    )  # of the images that are looked into: 64 of any data set
    assert store.sent["bytes"] - heads < 0.02 * total
    cold = store.sent["bytes"]
    again = open_source("s3://bucket/set-{000..001}.tar")
    assert store.sent["bytes"] == cold
    assert again.digest == first.digest
    local = open_source(f"{store.folder}/set-*.tar")
    assert local.digest == first.digest
    assert list(first.read_many(range(24))) == [local.read(i) for i in range(24)]


def test_small_files_are_read_in_large_pieces(make: type, store: Store) -> None:
    shards(make, store.folder, count=1, images=100)
    path = str(store.folder / "set-000.tar")
    before = store.sent["requests"]
    index = scan_shard("s3://bucket/set-000.tar", "it")
    assert store.sent["requests"] - before < 15
    assert index.paths == scan_shard(path, path).paths


def test_a_server_that_is_started_again_loses_nothing(
    make: type, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards(make, store.folder, count=2, images=20)
    monkeypatch.setattr(reading, "_REMOTE_PAUSES", (0.2,) * 50)
    monkeypatch.setattr(archives, "_IN_FLIGHT", 2)
    expected = [
        b.images for b in eval_loader(open_source(f"{store.folder}/*.tar"), SHOWN, batch_size=4)
    ]
    source = open_source("s3://bucket/set-{000..001}.tar")
    batches = iter(eval_loader(source, SHOWN, batch_size=4))
    found = [next(batches).images for _ in range(3)]
    store.stop()
    threading.Timer(0.5, store.start).start()
    found += [batch.images for batch in batches]
    assert len(found) == len(expected)
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


def test_a_store_that_stays_away_is_a_clear_end(
    make: type, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shards(make, store.folder, count=1)
    source = open_source("s3://bucket/set-000.tar")
    store.stop()
    monkeypatch.setattr(reading, "_REMOTE_PAUSES", (0.01, 0.02))
    monkeypatch.setattr(reading, "_SAID", 0.02)
    with pytest.raises(StorageError, match=r"cannot read 0000.jpg from s3://.*run the same") as end:
        list(eval_loader(source, SHOWN, batch_size=4))
    assert "\n" not in str(end.value)
    assert capsys.readouterr().err.count("trying again in 0.02 s") == 1


def test_what_is_missing_or_cut_short_is_said(make: type, store: Store) -> None:
    with pytest.raises(InputError, match=r"cannot read s3://bucket/none.tar"):
        open_source("s3://bucket/none.tar")
    path = shards(make, store.folder, count=1) / "set-000.tar"
    source = open_source("s3://bucket/set-000.tar")
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(InputError, match=r"set-000.tar.* cut short|cannot read"):
        list(source.read_many(range(6)))


# -- what is kept ------------------------------------------------------------------------------------


def test_a_changed_tar_is_walked_again(make: type, tmp_path: Path) -> None:
    shards(make, tmp_path, count=1)
    before = open_source(str(tmp_path / "set-000.tar"))
    (tmp_path / "set-000.tar").unlink()
    make.write_tar(tmp_path / "set-000.tar", {"b.jpg": photo(5, 20), "b.cls": b"7"})
    after = open_source(str(tmp_path / "set-000.tar"))
    assert (before.keys[0], after.keys) == ("0000.jpg", ["b.jpg"])
    assert after.read(0) == photo(5, 20)


@pytest.mark.parametrize("damage", ["cut", "flip", "other"])
def test_a_damaged_index_is_made_anew(make: type, tmp_path: Path, damage: str) -> None:
    shards(make, tmp_path, count=1)
    place = str(tmp_path / "set-000.tar")
    before = open_source(place)
    for path in (tmp_path / "cache" / "shards").iterdir():
        content = bytearray(path.read_bytes())
        if damage == "flip":
            content[len(content) // 2] ^= 64
        path.write_bytes({"cut": content[:20], "flip": content, "other": b"{}"}[damage])
    assert open_source(place).digest == before.digest


def test_a_sidecar_stands_for_a_walk_only_where_it_fits(
    make: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards(make, tmp_path, count=2)
    tar, other = (tmp_path / f"set-{n:03d}.tar" for n in range(2))
    expected = open_source(str(tar)).digest
    write_sidecar(tar)
    walked: list[str] = []
    walk = scan_shard
    monkeypatch.setattr(
        "tokenlabel.data.shard_index.scan_shard",
        lambda *names: walked.append(names[0]) or walk(*names),
    )
    for changed in (False, True):
        monkeypatch.setenv("TOKENLABEL_CACHE", str(tmp_path / f"empty{changed}"))
        if changed:  # as large, but another
            assert tar.stat().st_size == other.stat().st_size
            shutil.copyfile(other, tar)
        digest = open_source(str(tar)).digest
        assert (digest == expected, bool(walked)) == (not changed, changed)


def test_ranks_share_the_work(make: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards(make, tmp_path, count=4, images=2)
    opened: list[str] = []
    reader = Ranges.__init__
    monkeypatch.setattr(
        Ranges, "__init__", lambda s, place: opened.append(place) or reader(s, place)
    )
    digests = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        digests.append(open_source(f"{tmp_path}/set-*.tar").digest)
        tars = {place for place in opened if place.endswith(".tar")}
        assert len(tars) == (4 if rank == 0 else 0)
        opened.clear()
    assert len(set(digests)) == 1


def test_the_list_of_shards_of_webdataset_is_read(make: type, tmp_path: Path) -> None:
    shards(make, tmp_path, count=2)
    listed = {"wids_version": 1, "shardlist": [{"url": f"set-00{n}.tar"} for n in (1, 0)]}
    (tmp_path / "index.json").write_text(json.dumps(listed))
    source = open_source(str(tmp_path / "index.json"))
    assert source.keys[0] == "0006.jpg"
    assert len(source) == 12
    for wrong in ({}, {"shardlist": ["a"]}, {"shardlist": 3}):
        (tmp_path / "index.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match="is not a list of shards"):
            open_source(str(tmp_path / "index.json"))


def test_ranges_are_a_file(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "f").write_bytes(content)
    generator = np.random.default_rng(0)
    with Ranges(str(tmp_path / "f")) as file:
        for start in generator.integers(0, 310_000, 200).tolist():
            size = int(generator.integers(0, 3000))
            file.seek(start)
            assert file.read(size) == content[start : start + size]
            assert file.read(700) == content[start + size : start + size + 700]
        file.seek(0)
        assert file.read() == content
