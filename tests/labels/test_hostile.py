"""Stores, trees and remote places made to do harm: refused in one line, nothing written elsewhere."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import fsspec
import pytest
import torch

from tokenlabel.errors import InputError
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStore, LabelStoreWriter
from tokenlabel.labels.maintain import diff, verify
from tokenlabel.labels.released import export_released, import_released, read_released
from tokenlabel.labels.sharing import pull, push, store_card

SIZE = (375, 500)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TOKENLABEL_CACHE", str(tmp_path / "cache"))


def rewrite(folder: Path, **changes: object) -> None:
    """Change a manifest and give it the right checksum again."""
    content = json.loads((folder / "manifest.json").read_text())
    content.pop("checksum")
    content |= changes
    text = json.dumps(content, sort_keys=True)
    content["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil-of-tokenlabel", "a/../../evil.txt"])
def test_shards_of_hostile_names_are_refused(write_store, tmp_path, name) -> None:
    folder = write_store(count=3)
    shards = json.loads((folder / "manifest.json").read_text())["shards"]
    rewrite(folder, shards=[shards[0] | {"file": name}])
    files = fsspec.filesystem("memory")
    if files.exists("/hostile"):
        files.rm("/hostile", recursive=True)
    for file in folder.iterdir():
        files.pipe_file(f"/hostile/labels/{file.name}", file.read_bytes())
    files.pipe_file("/hostile/evil.txt", b"evil")
    for attempt in (
        lambda: pull("memory://hostile/labels", tmp_path / "out" / "labels"),
        lambda: LabelStore("memory://hostile/labels"),
        lambda: LabelStore(folder),
        lambda: push(folder, "memory://elsewhere"),
    ):
        with pytest.raises(InputError, match="not a name of a file inside"):
            attempt()
    assert not (tmp_path / "out" / "evil.txt").exists()
    assert not Path("/tmp/evil-of-tokenlabel").exists()


def test_manifests_that_lie_are_refused(write_store) -> None:
    folder = write_store(count=3)
    shards = json.loads((folder / "manifest.json").read_text())["shards"]
    for changes in (
        {"shards": [shards[0] | {"records": 7}]},
        {"shards": [shards[0] | {"records": -1}]},
        {"num_classes": 0},
        {"class_names": ["a"]},
        {"index_sha256": "0" * 64},
        {"shards": "none"},
    ):
        before = (folder / "manifest.json").read_bytes()
        rewrite(folder, **changes)
        with pytest.raises(InputError):
            LabelStore(folder)
        (folder / "manifest.json").write_bytes(before)
    rewrite(folder, num_classes=3)  # fewer than the labels name
    assert verify(LabelStore(folder))


def test_an_index_with_the_right_sum_may_still_lie(write_store) -> None:
    folder = write_store(count=3)
    good = (folder / "index.tli").read_bytes()
    for bad in (good[:8], good[:40], good[:8] + b"\xff" * 8 + good[16:], good[:50] + b"\xff" * 60):
        (folder / "index.tli").write_bytes(bad)
        rewrite(folder, index_sha256=hashlib.sha256(bad).hexdigest())
        with pytest.raises(InputError, match="damaged"):
            LabelStore(folder)


@pytest.mark.parametrize("key", ["..", "a/../../f.jpg", "/abs/f.jpg"])
def test_keys_cannot_write_above_the_output(tmp_path, make_map, key) -> None:
    with LabelStoreWriter(tmp_path / "store", num_classes=20) as writer:
        writer.add(key, make_map())
    with pytest.raises(InputError, match="not a name of a file inside"):
        export_released(LabelStore(tmp_path / "store"), tmp_path / "out" / "deep")
    assert not (tmp_path / "out").exists()


def test_keys_that_would_share_a_file_are_refused(tmp_path, make_map) -> None:
    with LabelStoreWriter(tmp_path / "store", num_classes=20) as writer:
        for number, key in enumerate(("a/cat/1.jpg", "b/cat/1.jpg", "a/cat/1.png")):
            writer.add(key, make_map(number))
    with pytest.raises(InputError, match=r"'a/cat/1.jpg' and 'b/cat/1.jpg' would share"):
        export_released(LabelStore(tmp_path / "store"), tmp_path / "out")


def test_exports_and_stores_go_into_no_folder_of_others(write_store, tmp_path, make_map) -> None:
    store = LabelStore(write_store())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("name: mine")
    for attempt in (
        lambda **kw: export_released(store, tmp_path / "run", **kw),
        lambda **kw: LabelStoreWriter(tmp_path / "run", num_classes=20, **kw).close(),
    ):
        with pytest.raises(InputError, match="holds something else"):
            attempt()
        attempt(overwrite=True)
    assert (tmp_path / "run" / "recipe.yaml").read_text() == "name: mine"
    out = tmp_path / "out"
    assert export_released(store, out) == len(list(out.rglob("*.pt"))) == 10
    first = {path: path.read_bytes() for path in out.rglob("*.pt")}
    export_released(store, out)  # again, as after an interruption: the same bytes
    assert {path: path.read_bytes() for path in out.rglob("*.pt")} == first


def bad_files(folder: Path) -> dict[str, str]:
    """Damaged label files, and what is said of each."""
    good = torch.zeros(2, 5, 3, 3)
    tensors = {
        "empty-shape": (torch.zeros(2, 0, 3, 3), "does not fit"),
        "sparse": (good.to_sparse(), "sparse"),
        "rows": (torch.zeros(2, 1, 70_000, 1), "does not fit"),
        "classes": (torch.zeros(2, 1001, 1, 1), "does not fit"),
        "complex": (good.to(torch.complex64), "complex"),
        "nan": (good * torch.nan, "not finite"),
        "repeated": (torch.zeros(1, 1, 1, 1).expand(2, 900, 4096, 4096), "does not fit"),
    }
    for name, (tensor, _) in tensors.items():
        torch.save(tensor, folder / f"{name}.pt")
    (folder / "zero.pt").write_bytes(b"")
    (folder / "noise.pt").write_bytes(bytes(range(256)) * 8)
    torch.save(good, folder / "bomb.pt")
    with zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(200_000_000))
    return {name: word for name, (_, word) in tensors.items()} | {
        "zero": "cannot be read", "noise": "cannot be read|refused", "bomb": "refused",
    }  # fmt: skip


def test_one_bad_file_stops_no_import(tmp_path) -> None:
    folder = tmp_path / "tree" / "cat"
    folder.mkdir(parents=True)
    expected = bad_files(folder)
    torch.save(torch.zeros(2, 5, 3, 3).half(), folder / "good.pt")
    for name, word in expected.items():
        with pytest.raises(InputError, match=word):
            read_released(folder / f"{name}.pt", Box(), 1000)
    keys = [f"cat/{name}.jpg" for name in [*expected, "good"]]
    found = import_released(
        tmp_path / "tree", tmp_path / "store", keys, lambda _: SIZE, num_classes=1000
    )
    assert (found.matched, len(found.missing), found.extra) == (1, len(expected), 0)
    store = LabelStore(tmp_path / "store")
    assert list(store) == ["cat/good.jpg"]
    assert len(store.manifest.left_out) == len(expected)
    assert verify(store) == []


def tree_of(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tensor = torch.zeros(2, 2, 2, 2)
        tensor[1, 0] = number
        torch.save(tensor, folder / name)
    return folder


def test_flat_keys_match_by_a_stem_that_is_unique(tmp_path) -> None:
    tree = tree_of(tmp_path / "tree", "cat/1.pt", "dog/2.pt", "cat/3.pt", "dog/3.pt")
    keys = ["1.jpg", "shard/2.jpg", "3.jpg", "cat/2.jpg", "9.jpg"]
    found = import_released(tree, tmp_path / "s", keys, lambda _: SIZE, num_classes=9)
    assert (found.matched, found.by_stem, found.extra) == (1, 1, 3)
    assert [line.split(":")[0] for line in found.missing] == keys[1:]  # "2" is asked for twice
    keys = ["1.jpg", "shard/2.jpg"]
    found = import_released(tree, tmp_path / "t", keys, lambda _: SIZE, num_classes=9)
    assert (found.matched, found.by_stem) == (2, 2)
    assert int(LabelStore(tmp_path / "t")["shard/2.jpg"].classes[0, 0, 0]) == 1


def test_an_import_that_matches_nothing_is_an_error(tmp_path) -> None:
    tree = tree_of(tmp_path / "tree", "cat/1.pt")
    with pytest.raises(InputError, match=r"no labels of these 1 images.*looks for"):
        import_released(tree, tmp_path / "store", ["x/7.jpg"], lambda _: SIZE, num_classes=9)
    assert not (tmp_path / "store").exists()


def test_maps_of_unequal_grids_are_compared_on_the_coarser_one(tmp_path, make_map) -> None:
    fine = make_map(0, k=20, grid=(8, 8))
    p = fine.probabilities().gather(0, fine.classes.argsort(0))
    coarse = p.reshape(20, 4, 2, 4, 2).mean((2, 4))
    for name, label in (
        ("fine", fine),
        ("coarse", LabelMap.from_logits(coarse.log(), 20, Box())),
        ("half", make_map(0, k=20, extent=Box(0, 0, 0.5, 1))),
        ("other", make_map(0, k=20, extent=Box(0.5, 0, 1, 1))),
    ):
        with LabelStoreWriter(tmp_path / name, num_classes=20, codec="exact") as writer:
            writer.add("x", label)
    stores = {n: LabelStore(tmp_path / n) for n in ("fine", "coarse", "half", "other")}
    found = diff(stores["fine"], stores["coarse"])
    assert (found.compared, found.resampled, found.top1_agreement) == (1, 1, 1.0)
    assert found.total_variation == pytest.approx(0, abs=2e-3)
    found = diff(stores["half"], stores["other"])
    assert (found.compared, found.incomparable, found.top1_agreement) == (0, 1, None)


def test_cards_hold_what_names_say_and_no_markup(write_store) -> None:
    folder = write_store(annotator={"model": "<script>|x`\n# heading"})
    card = store_card(LabelStore(folder).manifest)
    assert "<script>" not in card
    assert "\n# heading" not in card
    assert "&lt;script&gt;\\|x" in card


def test_a_label_map_says_what_it_is_in_two_lines(make_map) -> None:
    text = repr(make_map(k=5, grid=(14, 14), num_classes=1000))
    assert text.count("\n") == 1
    assert max(map(len, text.splitlines())) < 100
    assert "top 5 of 1000 classes, 14 x 14 cells" in text
