"""The released layout comes in safely and goes out again."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from tokenlabel.errors import InputError
from tokenlabel.geometry import Box, View
from tokenlabel.labels import LabelMap, LabelStore, LabelStoreWriter, token_targets
from tokenlabel.labels.codec import decode, encode
from tokenlabel.labels.released import export_released, import_released, read_released

SIZE = (375, 500)


class Intruder:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def tree(tmp_path, make_map) -> Path:
    folder = tmp_path / "tree"
    for number in range(6):
        path = folder / "cat" / f"{number}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        label = make_map(number, k=5, grid=(18, 18), num_classes=1000)
        torch.save(torch.stack([label.scores, label.classes.float()]).half(), path)
    return folder


def run(tree: Path, output: Path, keys, **kwargs):
    return import_released(tree, output, keys, lambda _: SIZE, num_classes=1000, **kwargs)


KEYS = [f"train/cat/{number}.JPEG" for number in range(6)]


def test_imported_maps_are_the_trees_own_bit_for_bit(tree, tmp_path) -> None:
    found = run(tree, tmp_path / "store", KEYS)
    assert (found.matched, found.missing, found.extra) == (6, [], 0)
    store = LabelStore(tmp_path / "store")
    for key in KEYS:
        scores, classes = torch.load(tree / "cat" / f"{Path(key).stem}.pt").float()
        assert torch.equal(store[key].scores, scores)
        assert torch.equal(store[key].classes, classes.long())
        assert store[key].log_normalizer is None
        assert store[key].extent == Box(0.125, 0, 0.875, 1)


def test_released_targets_are_reproduced(tree, tmp_path) -> None:
    run(tree, tmp_path / "store", KEYS, extent="whole")
    scores, classes = torch.load(tree / "cat/3.pt").float()
    direct = LabelMap(scores, classes.long(), None, Box(), 1000)
    view = View.crop(Box(0.1, 0.2, 0.7, 0.9))
    a, b = (
        token_targets([label], [view], (14, 14), "released").dense()
        for label in (direct, LabelStore(tmp_path / "store")[KEYS[3]])
    )
    assert torch.equal(a, b)


def test_missing_extra_and_damaged_files_are_counted(tree, tmp_path) -> None:
    (tree / "cat" / "1.pt").unlink()
    (tree / "cat" / "2.pt").write_bytes((tree / "cat" / "2.pt").read_bytes()[:300])
    torch.save(torch.zeros(3, 3), tree / "cat" / "3.pt")
    bad = torch.load(tree / "cat" / "4.pt")
    bad[1, 0, 0, 0] = 0.5
    torch.save(bad, tree / "cat" / "4.pt")
    torch.save(bad, tree / "cat" / "nobody.pt")
    found = run(tree, tmp_path / "store", KEYS)
    assert (found.matched, found.extra) == (2, 1)
    assert [line.split(":")[0] for line in found.missing] == KEYS[1:5]
    for line, word in zip(
        found.missing,
        ("not in the tree", "cannot be read", "needs a tensor", "damaged"),
        strict=True,
    ):
        assert word in line
    store = LabelStore(tmp_path / "store")
    assert list(store) == [KEYS[0], KEYS[5]]
    assert [left.key for left in store.manifest.left_out] == KEYS[1:5]


def test_a_file_that_would_run_code_is_refused_and_runs_none(tree, tmp_path) -> None:
    trace = tmp_path / "was here"
    for name, write in (
        ("0.pt", torch.save),
        ("1.pt", lambda o, p: p.write_bytes(pickle.dumps(o))),
    ):
        write(Intruder(trace), tree / "cat" / name)
        with pytest.raises(InputError, match=r"cannot be read|holds more than tensors"):
            read_released(tree / "cat" / name, Box(), 1000)
    found = run(tree, tmp_path / "store", KEYS)
    assert found.matched == 4
    assert not trace.exists()


def test_ids_beyond_the_classes_are_refused(tree) -> None:
    with pytest.raises(InputError, match=r"names class \d+, which is none of 10"):
        read_released(tree / "cat" / "0.pt", Box(), 10)


def test_ids_that_float16_does_not_hold_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "0.pt"
    torch.save(torch.full((2, 1, 2, 2), 2050.0).half(), file)
    with pytest.raises(InputError, match="names class 2050, which may be another"):
        read_released(file, Box(), 5000)


def test_export_and_import_are_inverse(tree, tmp_path) -> None:
    run(tree, tmp_path / "store", KEYS)
    assert export_released(LabelStore(tmp_path / "store"), tmp_path / "out") == 6
    for path in tree.rglob("*.pt"):
        again = torch.load(tmp_path / "out" / path.relative_to(tree))
        assert torch.equal(again, torch.load(path))


@pytest.mark.parametrize("codec", ["compact", "exact"])
def test_exported_logits_mean_the_stores_probabilities(tmp_path, make_map, codec) -> None:
    with LabelStoreWriter(tmp_path / "store", num_classes=1000, codec=codec) as writer:
        writer.add("a/b.jpg", make_map(k=5, num_classes=1000))
    store = LabelStore(tmp_path / "store")
    export_released(store, tmp_path / "out")
    scores, classes = torch.load(tmp_path / "out" / "a" / "b.pt").float()
    dense = torch.zeros(1000, 4, 5).scatter_(0, classes.long(), scores).softmax(0)
    label = store["a/b.jpg"]
    found = dense.gather(0, label.classes)
    torch.testing.assert_close(found, label.probabilities(), rtol=1e-2, atol=1e-6)


def test_labels_without_logits_make_no_released_targets(make_map) -> None:
    probabilities = torch.randn(20, 4, 5).softmax(0)  # an average of several views, say
    for label in (
        decode(encode(make_map(), "compact"), "compact", 20),
        LabelMap.from_logits(probabilities.log(), 5, Box()),
    ):
        with pytest.raises(InputError, match="need the annotator's raw logits"):
            token_targets([label], [View.identity()], (2, 2), "released")


def test_ids_that_float16_cannot_hold_are_not_exported(tmp_path, make_map) -> None:
    with LabelStoreWriter(tmp_path / "store", num_classes=21841) as writer:
        writer.add("a/b.jpg", make_map(num_classes=21841))
    with pytest.raises(InputError, match="ids up to 2048"):
        export_released(LabelStore(tmp_path / "store"), tmp_path / "out")


def test_wrong_places_are_named(tmp_path) -> None:
    with pytest.raises(InputError, match="no label tree"):
        run(tmp_path / "none", tmp_path / "store", KEYS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.pt files"):
        run(tmp_path / "empty", tmp_path / "store", KEYS)
