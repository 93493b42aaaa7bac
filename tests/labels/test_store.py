"""A store gives back what was written; a damaged one says so and never gives a wrong label."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import pytest
import torch

from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore, LabelStoreWriter
from tokenlabel.labels.codec import decode, encode


def test_a_store_gives_back_what_was_written(write_store, make_map) -> None:
    store = LabelStore(write_store(codec="exact", count=10, shard_size=4))
    assert len(store) == 10
    assert [shard.records for shard in store.manifest.shards] == [4, 4, 2]
    assert list(store.keys()) == [f"cat/{n:04d}.jpg" for n in range(10)]
    assert store.keys()[3:5] == ["cat/0003.jpg", "cat/0004.jpg"]
    for number in (7, 0, 9, 3):
        expected = make_map(number)
        found = store[f"cat/{number:04d}.jpg"]
        assert torch.equal(found.classes, expected.classes)
        assert torch.equal(found.scores, expected.scores.half().float())
        assert found.num_classes == 20


def test_unknown_keys_are_named(write_store) -> None:
    store = LabelStore(write_store())
    assert "cat/0003.jpg" in store
    assert "dog/0003.jpg" not in store
    with pytest.raises(KeyError, match=r"no label for 'cat/3.jpg' \(did you mean"):
        store["cat/3.jpg"]


def test_a_store_travels_to_other_processes(write_store) -> None:
    store = LabelStore(write_store())
    there = pickle.loads(pickle.dumps(store))
    assert torch.equal(there["cat/0001.jpg"].classes, store["cat/0001.jpg"].classes)


def test_keys_may_be_any_text_and_a_store_may_be_empty(tmp_path, make_map) -> None:
    with LabelStoreWriter(tmp_path / "names", num_classes=20) as writer:
        writer.add("猫/été 1.jpg", make_map())
        writer.leave_out("hund/2.jpg", "truncated")
    store = LabelStore(tmp_path / "names")
    assert list(store) == ["猫/été 1.jpg"]
    assert [(left.key, left.reason) for left in store.manifest.left_out] == [
        ("hund/2.jpg", "truncated")
    ]
    LabelStoreWriter(tmp_path / "empty", num_classes=20).close()
    assert len(LabelStore(tmp_path / "empty")) == 0


def test_unfinished_and_foreign_folders_are_refused(tmp_path, make_map) -> None:
    with pytest.raises(InputError, match="not a label store"):
        LabelStore(tmp_path)
    LabelStoreWriter(tmp_path / "a", num_classes=20).add("x", make_map())
    with pytest.raises(InputError, match="unfinished"):
        LabelStore(tmp_path / "a")


def test_a_newer_format_is_refused_by_name(write_store) -> None:
    folder = write_store()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format_version": 3}))
    with pytest.raises(InputError, match="format version 3"):
        LabelStore(folder)


def _read_all(folder: Path, originals: dict[str, bytes]) -> int:
    """How many reads raised a clear error; every other read must have the original content."""
    errors = 0
    store = LabelStore(folder)
    for key, payload in originals.items():
        try:
            assert store.payload(key) == payload
            decode(payload, store.manifest.codec, 20)
        except InputError as error:
            errors += "shard-" in str(error) and (repr(key) in str(error) or "bytes" in str(error))
    return errors


@pytest.mark.parametrize("codec", ["compact", "raw"])
def test_corrupted_shards_never_give_a_wrong_label(write_store, make_map, codec) -> None:
    folder = write_store(count=8, shard_size=4, codec=codec)
    originals = {f"cat/{n:04d}.jpg": encode(make_map(n), codec) for n in range(8)}
    assert _read_all(folder, originals) == 0
    rng = random.Random(0)
    for _ in range(1000):
        shard = folder / f"shard-0000{rng.randrange(2)}.tll"
        good = shard.read_bytes()
        bad = bytearray(good)
        kind = rng.choice(["flip", "bytes", "cut", "grow", "swap"])
        start = rng.randrange(len(bad) - 1)
        if kind == "flip":
            bad[start] ^= 1 << rng.randrange(8)
        elif kind == "bytes":
            stop = min(start + rng.randrange(1, 64), len(bad))
            bad[start:stop] = rng.randbytes(stop - start)
        elif kind == "cut":
            del bad[start:]
        elif kind == "grow":
            bad[start:start] = rng.randbytes(rng.randrange(1, 9))
        else:
            bad[start:] = bad[start:][::-1]
        shard.write_bytes(bad)
        errors = _read_all(folder, originals)
        changed = bytes(bad[8:]) != good[8:]  # the magic bytes are of no consequence to a reader
        assert errors >= 1 or not changed
        shard.write_bytes(good)


@pytest.mark.parametrize("name", ["index.tli", "manifest.json"])
def test_a_corrupted_index_or_manifest_is_noticed_at_once(write_store, name) -> None:
    folder = write_store()
    good = (folder / name).read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        bad = bytearray(good)
        place = rng.randrange(len(bad))
        bad[place] ^= 1 << rng.randrange(8)
        (folder / name).write_bytes(bad)
        with pytest.raises(InputError, match=str(folder)):
            LabelStore(folder)
