"""One place opens images, by one rule for every verb; all forms of the same data are equal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenlabel.data import open as opening
from tokenlabel.data.open import holdout, open_images, open_source, open_validation
from tokenlabel.data.source import Found, source_fingerprint
from tokenlabel.errors import InputError

# -- parts -----------------------------------------------------------------------------------------


def test_a_class_may_be_called_train(make: type, tmp_path: Path) -> None:
    root = make.write_files(
        tmp_path / "vehicles", ["train/1.png", "car/1.png", "bus/1.png", "train.txt"]
    )
    source = open_images(str(root), part="train")
    assert source.class_names == ("bus", "car", "train")
    assert source.found.part is None
    assert source.found.left_out == {"files ending in .txt": 1}
    assert open_validation(str(root)) is None
    archive = make.write_tar(tmp_path / "v.tar", ["train/1.png", "car/1.png", "bus/1.png"])
    assert open_images(str(archive), part="train").class_names == ("bus", "car", "train")
    for name in ("train", "car", "bus"):
        make.write_tar(tmp_path / "tars" / f"{name}.tar", ["1.png"])
    assert open_images(str(tmp_path / "tars"), part="train").class_names == ("bus", "car", "train")


def test_each_verb_gets_its_part(make: type, tmp_path: Path) -> None:
    files = ["train/cat/1.png", "train/train/1.png", "val/cat/2.png", "docs/readme.md", "x.png"]
    root = str(make.write_files(tmp_path / "set", files))
    assert open_images(root, part="train").keys == ["cat/1.png", "train/1.png"]
    assert open_images(root, part="val").keys == ["cat/2.png"]
    assert open_images(root, "validation", "train").found.part == "val"
    validation = open_validation(root)
    assert validation is not None
    assert validation.found.part == "val"
    assert open_images(f"{root}/train").keys == ["cat/1.png", "train/1.png"]


def test_a_data_set_with_a_training_part_only_has_no_validation(make: type, tmp_path: Path) -> None:
    root = str(make.write_files(tmp_path, ["train/cat/1.png"]))
    assert open_validation(root) is None
    with pytest.raises(InputError, match=r"no validation part in .*: it holds train"):
        open_images(root, part="val")


def test_parts_in_a_folder_of_their_own_are_parts(make: type, tmp_path: Path) -> None:
    """As archives are often packed and unpacked: `tar cf photos.tar photos`."""
    files = ["set/v1/train/cat/1.png", "set/v1/val/cat/2.png", "set/v1/read.me", "docs/read.me"]
    for place in (
        make.write_files(tmp_path / "a", files),
        make.write_tar(tmp_path / "a.tar", files),
    ):
        source = open_images(str(place), part="train")
        assert (source.found.part, source.keys) == ("train", ["cat/1.png"])
        assert open_images(str(place), part="val").keys == ["cat/2.png"]
        with pytest.raises(InputError, match="it holds train, val"):
            open_images(str(place), "set")
    classes = ["set/cat/1.png", "set/dog/2.png"]
    one = ["cat/train/1.png", "cat/val/2.png"]  # folders of images, not of classes
    for name, files in (("b", classes), ("c", one)):
        folder = make.write_files(tmp_path / name, files)
        archive = make.write_tar(tmp_path / f"{name}.tar", files)
        for place in (folder, archive):
            assert (source := open_images(str(place), part="train")).keys == files
            assert source.found.part is None
    stray = ["set/train/cat/1.png", "set/val/cat/2.png", "stray.png"]
    for place in (
        make.write_files(tmp_path / "d", stray),
        make.write_tar(tmp_path / "d.tar", stray),
    ):
        with pytest.raises(InputError, match=r"also stray\.png beside them"):
            open_images(str(place), part="train")


def test_folders_of_one_name_are_one_class_and_that_is_said(make: type, tmp_path: Path) -> None:
    source = open_source(str(make.write_files(tmp_path, ["a/x/1.png", "b/x/1.png", "b/y/1.png"])))
    assert source.class_names == ("x", "y")
    assert source.found.line() == "3 images in 2 classes; class 'x' is a/x and b/x"


def test_class_folders_without_images_are_told_and_are_no_classes(
    make: type, tmp_path: Path
) -> None:
    files = ["train/ant/1.png", "train/big/cat/1.png", "train/notes/read.me", "val/ant/2.png"]
    root = make.write_files(tmp_path / "set", files)
    full = open_images(str(root), part="train")
    assert full.found.line().endswith("; 1 folder without images left out: notes")
    for name in ("bee", "big/empty", "nest/inner", ".hidden", "a10", "a9"):
        (root / "train" / name).mkdir(parents=True)
    source = open_images(str(root), part="train")
    assert source.found.notes == ("6 folders without images left out: a9, a10, bee ...",), (
        "nest counts once"
    )
    assert (source.class_names, list(source.labels)) == (full.class_names, list(full.labels))
    assert open_images(str(root), part="val").found.notes == ()
    (tmp_path / "flat" / "empty").mkdir(parents=True)
    make.write_files(tmp_path / "flat", ["1.png"])
    assert open_images(str(tmp_path / "flat")).found.notes == (), "it has no class folders"


def test_a_flat_folder_has_no_classes(make: type, tmp_path: Path) -> None:
    root = make.write_files(tmp_path / "flat", ["1.png", "2.png"])
    assert open_images(str(root)).found.line() == "2 images without classes"
    archive = make.write_tar(tmp_path / "flat.tar", ["1.png", "2.png"])
    assert open_images(str(archive)).found.line() == "2 images without classes"


def test_the_account_does_not_follow_the_order_of_the_disk() -> None:
    one = Found(2, 1, left_out={"hidden": 1, "a": 2}, modes={"RGB": 1, "L": 1})
    other = Found(2, 1, left_out={"a": 2, "hidden": 1}, modes={"L": 1, "RGB": 1})
    assert repr(one.as_dict()) == repr(other.as_dict())
    assert repr(one) == repr(other)


# -- locations -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "opener"),
    [
        ("hf://datasets/timm/set/data-{000..002}.tar", "_open_archives"),
        ("hf://datasets/timm/set/*.parquet", "_open_parquet"),
        ("hf://datasets/timm/set", "_open_hub"),
        ("hfds/timm/set", "_open_hub"),
        ("s3://bucket/train.tar", "_open_archives"),
    ],
)
def test_paths_into_the_hub_are_files_and_names_are_data_sets(location: str, opener: str) -> None:
    taken = next(opener for opener in opening.OPENERS if opener.takes(location))
    assert taken.open.__name__ == opener


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("hf://datasets/a/b", "a/b"),
        ("hfds/a/b/", "a/b"),
        ("hf://a/b", "a/b"),
        ("hfds/mnist", "mnist"),
    ],
)
def test_the_name_of_a_hub_data_set(
    location: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def hub(*arguments: object) -> object:
        asked.append(arguments)
        raise InputError("not asked in a test")

    monkeypatch.setattr(opening, "open_hub", hub)
    with pytest.raises(InputError, match="not asked"):
        open_images(location, "x", "train")
    assert asked == [(name, "x", "train")]


def test_patterns_are_expanded_in_natural_order(make: type, tmp_path: Path) -> None:
    for i in (10, 9, 1):
        make.write_tar(tmp_path / f"c{i}.tar", ["1.png"])
    names = [Path(path).name for path in opening.expand(f"{tmp_path}/c*.tar")]
    assert names == ["c1.tar", "c9.tar", "c10.tar"]
    assert opening.expand("c{01..03}.tar") == ["c01.tar", "c02.tar", "c03.tar"]
    for pattern, said in [
        ("c{0..99999999}.tar", "more than 100,000"),
        ("c{0.tar", "cannot read"),
    ]:
        with pytest.raises(InputError, match=said):
            opening.expand(pattern)
    odd = make.write_tar(tmp_path / "a{b*.tar", ["cat/1.png"])
    assert open_source(str(odd)).keys == ["cat/1.png"]


# -- held out --------------------------------------------------------------------------------------


def test_a_share_of_each_class_is_held_out(make: type, tmp_path: Path) -> None:
    files = [f"{name}/{i}.png" for name, n in (("a", 30), ("b", 4), ("c", 1)) for i in range(n)]
    source = open_source(str(make.write_files(tmp_path / "one", files)))
    train, held = holdout(source, 0.1, seed=0)
    assert [list(held.labels).count(label) for label in range(3)] == [3, 1, 0]
    assert sorted([*train.keys, *held.keys]) == sorted(source.keys)
    assert train.class_names == held.class_names == source.class_names
    assert held.read(0) == source.read(list(source.keys).index(held.keys[0]))
    assert "4 held out for validation" in train.found.line()
    other_seed = holdout(source, 0.1, seed=1)[1]
    assert other_seed.keys != held.keys
    # the choice within a class does not depend on the other classes
    alone = open_source(str(make.write_files(tmp_path / "two", files[:30])))
    assert holdout(alone, 0.1, seed=0)[1].keys == [k for k in held.keys if k.startswith("a/")]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_of_nothing_or_all_is_refused(make: type, tmp_path: Path, share: float) -> None:
    source = open_source(str(make.write_files(tmp_path, ["a/1.png"])))
    with pytest.raises(InputError, match="between 0 and 1"):
        holdout(source, share, 0)


# -- all forms are equal ---------------------------------------------------------------------------

WORDS = st.text("aAbB019._- é٣²", min_size=1, max_size=5).filter(
    lambda name: not name.startswith((".", "-")) and name.strip(" .") and not name.endswith(".")
)
PATHS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=12, unique=True)

LISTED = """
import json, sys
from tokenlabel.data.open import open_source
told = []
for location in sys.argv[1:]:
    source = open_source(location)
    images = [source.read(i).hex() for i in range(len(source))]
    told.append([list(source.keys), source.class_names, list(source.labels), images, source.digest])
print(json.dumps(told))
"""


def written(make: type, root: Path, files: dict[str, bytes]) -> list[str]:
    """The same images as a folder, a tar, shards and a table; the first two in the order given."""
    datasets = pytest.importorskip("datasets")
    make.write_files(root / "folder", files)
    source = open_source(str(root / "folder"))
    classes = {
        key: source.class_names[label]
        for key, label in zip(source.keys, source.labels, strict=True)
    }
    make.write_tar(root / "images.tar", files)
    inside = {key: files[key] for key in source.keys}
    make.write_tar(root / "shard-0.tar", make.with_notes(inside, classes))
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(
        {
            "image": [{"bytes": files[key], "path": key} for key in source.keys],
            "label": [classes[key] for key in source.keys],
        },
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")}),
    ).save_to_disk(root / "table")
    return [str(root / name) for name in ("folder", "images.tar", "shard-0.tar", "table")]


def same(make: type, locations: list[str]) -> list[tuple[str, str, bytes]]:
    """Asserts that all locations hold the same images in the same order, and returns them."""
    folder, *others = [open_source(location) for location in locations]
    first: list[tuple[str, str, bytes]] = make.contents(folder)
    for other in others:
        assert [entry[1:] for entry in make.contents(other)] == [entry[1:] for entry in first]
        assert other.class_names == folder.class_names
    for other in others[:2]:
        assert list(other.keys) == list(folder.keys)
        assert source_fingerprint(other) == source_fingerprint(folder)
    return first


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths=PATHS, shuffle=st.randoms(use_true_random=False))
def test_all_forms_hold_the_same_images_classes_and_order(
    make: type,
    tmp_path_factory: pytest.TempPathFactory,
    paths: list[tuple[str, str]],
    shuffle: object,
) -> None:
    root = tmp_path_factory.mktemp("forms")
    files = {f"{a}/{b}.png": make.encoded(i) + str(i).encode() for i, (a, b) in enumerate(paths)}
    found = same(make, written(make, root / "one", files))
    assert {entry[0] for entry in found} == set(files)
    # the same data, laid on disk in another order
    order = list(files)
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    permuted = {path: files[path] for path in order}
    assert same(make, written(make, root / "two", permuted)) == found


def test_the_hash_seed_of_a_process_changes_nothing(make: type, tmp_path: Path) -> None:
    names = ["A", "a", "b", "1", "01", "x.10", "x.9", "É", "é", "٣", "2²"]
    files = {
        f"{name}/{stem}.png": make.encoded(i)
        for name in names
        for i, stem in enumerate(("I", "i", "9"))
    }
    locations = written(make, tmp_path, files)
    told = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", LISTED, *locations],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        told.add(done.stdout.splitlines()[-1])
    assert len(told) == 1
    keys, class_names, *_ = json.loads(told.pop())[0]
    assert class_names == ["01", "1", "2²", "٣", "A", "a", "b", "x.9", "x.10", "É", "é"]
    assert keys[-2:] == ["é/I.png", "é/i.png"]
