"""Stores are read from, pushed to and pulled from remote places."""

from __future__ import annotations

import fsspec
import pytest
import torch

from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore
from tokenlabel.labels.sharing import pull, push


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TOKENLABEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def remote(write_store):
    files = fsspec.filesystem("memory")
    if files.exists("/bucket"):
        files.rm("/bucket", recursive=True)
    push(write_store(count=10, shard_size=4), "memory://bucket/labels")
    return files


def test_a_remote_store_reads_like_a_local_one(remote, make_map, monkeypatch) -> None:
    store = LabelStore("memory://bucket/labels")
    assert len(store) == 10
    assert torch.equal(store["cat/0005.jpg"].classes.sort(0)[0], make_map(5).classes.sort(0)[0])
    fetched = []
    get_file = type(remote).get_file
    monkeypatch.setattr(
        type(remote),
        "get_file",
        lambda self, path, *args, **kwargs: (
            fetched.append(path),
            get_file(self, path, *args, **kwargs),
        )[1],
    )
    again = LabelStore("memory://bucket/labels")
    again["cat/0006.jpg"]  # of the shard that is in the cache
    assert [path.rsplit("/", 1)[1] for path in fetched] == ["manifest.json"]
    again["cat/0000.jpg"]
    assert fetched[-1].endswith("shard-00000.tll")


def test_a_damaged_remote_shard_is_refused_and_not_kept(remote) -> None:
    path = "/bucket/labels/shard-00001.tll"
    good = remote.cat_file(path)
    remote.pipe_file(path, good[:-1] + bytes([good[-1] ^ 1]))
    store = LabelStore("memory://bucket/labels")
    with pytest.raises(InputError, match=r"shard-00001\.tll is damaged"):
        store["cat/0005.jpg"]
    remote.pipe_file(path, good)
    store["cat/0005.jpg"]


def test_pull_brings_the_same_bytes_and_goes_on(remote, tmp_path) -> None:
    folder = tmp_path / "pulled"
    pull("memory://bucket/labels", folder)
    shard = folder / "shard-00002.tll"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(whole) == {"manifest.json", "index.tli", *(f"shard-0000{n}.tll" for n in range(3))}
    shard.write_bytes(b"cut short")
    pull("memory://bucket/labels", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert len(LabelStore(folder)) == 10


def test_a_card_goes_with_it(remote) -> None:
    card = remote.cat_file("/bucket/labels/README.md").decode()
    assert card.startswith("---\ntags:")
    assert "| images | 10 |" in card
    assert "| codec | compact |" in card


def test_places_that_cannot_be_reached_are_named(write_store, tmp_path) -> None:
    with pytest.raises(InputError, match=r"cannot read memory://nowhere/manifest\.json"):
        LabelStore("memory://nowhere")
    with pytest.raises(InputError, match="cannot write to nosuch://place"):
        push(write_store(), "nosuch://place")
    with pytest.raises(InputError, match="not a label store"):
        push(tmp_path, "memory://bucket/other")
