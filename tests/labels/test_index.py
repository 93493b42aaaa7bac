"""The index finds every key, also where hashes collide; the first version's too."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore, index, index_writer
from tokenlabel.labels.index import HEAD, open_index
from tokenlabel.labels.index_writer import IndexWriter
from tokenlabel.labels.maintain import merge, verify

KEYS = [f"{n % 7}/é{n}.jpg" for n in range(3000)]


def write(folder: Path, keys: list[str], offsets: list[int], piece: int = 700) -> tuple[Path, str]:
    (folder / "aside").mkdir(exist_ok=True)
    writer = IndexWriter(folder / "aside")
    for first in range(0, len(keys), piece):
        writer.extend(keys[first : first + piece], offsets[first : first + piece])
    return folder / "i", writer.write(folder / "i")


def as_first_version(folder: Path) -> None:
    """Rewrite a store's index and manifest as the first version wrote them."""
    store = LabelStore(folder)
    texts = [key.encode() for key in store]
    hashes = np.array([zlib.crc32(text) for text in texts], "<u4")
    order = np.argsort(hashes, kind="stable").astype("<u4")
    ends = np.cumsum([len(text) for text in texts], dtype="<u4")
    offsets = np.array(store._index.offsets, "<u8")
    parts = (offsets, hashes[order], order, ends)
    head = struct.pack("<8sQ", b"TLINDEX1", len(texts))
    content = b"".join([head, *(part.tobytes() for part in parts), *texts])
    (folder / "index.tli").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["checksum"]
    manifest |= {"format_version": 1, "index_sha256": hashlib.sha256(content).hexdigest()}
    checksum = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest | {"checksum": checksum}))


@pytest.mark.parametrize("collide", [False, True])
def test_every_key_is_found_and_no_other(tmp_path, monkeypatch, collide) -> None:
    if collide:
        for module in (index, index_writer):
            monkeypatch.setattr(module, "hash_of", lambda key: bytes(7) + bytes([key[-5] % 3]))
    offsets = [n * 11 for n in range(len(KEYS))]
    found = open_index(*write(tmp_path, KEYS, offsets))
    some = range(0, len(KEYS), 150 if collide else 1)
    assert [found.find(KEYS[n]) for n in some] == list(some)
    assert found.offsets.tolist() == offsets
    assert all(found.find(KEYS[n] + "x") == -1 for n in some)
    assert found.keys == KEYS
    assert found.keys[-1] == KEYS[-1]
    assert KEYS[3] in found.keys


def test_how_records_arrive_changes_no_byte(tmp_path) -> None:
    offsets = list(range(len(KEYS)))
    sums = set()
    for piece in (90, 1000, len(KEYS)):
        (tmp_path / str(piece)).mkdir()
        sums.add(write(tmp_path / str(piece), KEYS, offsets, piece)[1])
    assert len(sums) == 1
    empty = open_index(*write(tmp_path, [], []))
    assert (len(empty), empty.find("a")) == (0, -1)


def test_a_key_comes_once(tmp_path) -> None:
    with pytest.raises(InputError, match="'b' comes twice"):
        write(tmp_path, ["a", "b", "c", "b"], [0, 1, 2, 3])


def test_damage_never_finds_a_wrong_record(tmp_path, monkeypatch) -> None:
    """In a file too large to be compared whole, keys are missing, found, or refused."""
    monkeypatch.setattr(index, "_CHECKED_WHOLE", 0)
    path, sha256 = write(tmp_path, KEYS, list(range(len(KEYS))))
    good = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(60):
        bad = bytearray(good)
        start = int(generator.integers(len(bad)))
        bad[start : start + 40] = generator.bytes(len(bad[start : start + 40]))
        path.write_bytes(bad)
        with suppress(InputError):
            found = open_index(path, sha256)
            for n in generator.integers(len(KEYS), size=20):
                assert found.find(KEYS[n]) in (-1, n)
    for cut in (good[:-1], good + b"x", good[: HEAD.size], good[:9]):
        path.write_bytes(cut)
        with pytest.raises(InputError, match="damaged"):
            open_index(path, sha256)


def test_stores_of_the_first_version_are_read_and_upgraded(tmp_path, write_store) -> None:
    folder = write_store(count=9)
    before = LabelStore(shutil.copytree(folder, tmp_path / "before"))
    as_first_version(folder)
    first = LabelStore(folder)
    assert first.manifest.format_version == 1
    assert first.keys() == before.keys()
    assert all(first.payload(key) == before.payload(key) for key in before)
    assert "cat/9.jpg" not in first
    assert verify(first) == []
    assert merge([first], tmp_path / "new") == 9
    new = LabelStore(tmp_path / "new")
    assert new.manifest == before.manifest
    for file in folder.glob("shard-*"):
        assert (tmp_path / "new" / file.name).read_bytes() == file.read_bytes()
