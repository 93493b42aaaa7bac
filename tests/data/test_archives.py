"""Tars: class names from the archives' own names, nothing lost, and limits."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
from pathlib import Path

import pytest

from tokenlabel.data import tar as tar_module
from tokenlabel.data.open import open_images, open_source
from tokenlabel.errors import InputError


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_classes_are_the_archives_names_without_their_ending(
    make: type, tmp_path: Path, ending: str
) -> None:
    names = ["1.0mm", "1.5mm", "St. Bernard", "St. John"]
    for name in names:
        make.write_tar(tmp_path / f"{name}.{ending}", ["x.1.jpg", "x.2.jpg"])
    source = open_source(str(tmp_path))
    assert list(source.class_names) == names
    assert source.keys[:2] == ["1.0mm/x.1.jpg", "1.0mm/x.2.jpg"]
    assert list(source.labels) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert pickle.loads(pickle.dumps(source)).read(3) == source.read(3)


def test_archives_of_one_name_in_two_folders_are_told_apart(make: type, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for name in ("cat", "dog"):
            make.write_tar(tmp_path / folder / f"{name}.tar", {f"{i}.png": b"" for i in range(10)})
    source = open_source(f"{tmp_path}/*/*.tar")
    assert len(source) == 40
    assert source.class_names == ("cat", "dog")
    assert source.keys[0] == "a/cat/0.png"
    assert len(set(source.keys)) == 40


def test_a_name_twice_in_a_tar_is_refused(make: type, tmp_path: Path) -> None:
    place = make.write_tar(tmp_path / "a.tar", ["cat/1.jpg", "dog/1.jpg"])
    with tarfile.open(place, "a") as tar:
        info = tarfile.TarInfo("cat/1.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"new"))
    with pytest.raises(InputError, match=r"a.tar holds cat/1.jpg twice"):
        open_source(str(place))


@pytest.mark.parametrize("name", ["../cat/1.jpg", "/cat/1.jpg", "cat/../../1.jpg"])
def test_names_that_lead_out_of_a_tar_are_refused(make: type, tmp_path: Path, name: str) -> None:
    place = make.write_tar(tmp_path / "a.tar", ["dog/1.jpg", name])
    with pytest.raises(InputError, match=r"a.tar holds .* leads out of the data set"):
        open_source(str(place))


def test_what_is_passed_over_in_a_tar_is_counted(make: type, tmp_path: Path) -> None:
    place = make.write_tar(
        tmp_path / "a.tar", ["cat/1.jpg", "cat/._1.jpg", "__MACOSX/cat/1.jpg", "cat/x.txt"]
    )
    with tarfile.open(place, "a") as tar:
        link = tarfile.TarInfo("cat/2.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "cat/1.jpg"
        tar.addfile(link)
    found = open_source(str(place)).found
    assert found.images == 1
    assert found.left_out == {"hidden": 2, "files ending in .txt": 1, "not regular files": 1}
    assert found.line() == (
        "1 images in 1 classes; left out: 2 hidden, 1 files ending in .txt, 1 not regular files"
    )


def test_the_parts_of_a_folder_of_archives(make: type, tmp_path: Path) -> None:
    for part, images in (("train", ["cat/1.jpg", "dog/1.jpg"]), ("val", ["cat/2.jpg"])):
        make.write_tar(tmp_path / f"pets-{part}-00.tar", images)
    assert open_images(str(tmp_path), part="train").keys == ["cat/1.jpg", "dog/1.jpg"]
    assert open_images(str(tmp_path), part="val").keys == ["cat/2.jpg"]
    assert open_images(str(tmp_path), split="val").found.part == "val"
    assert open_images(f"{tmp_path}/*.tar", part="val").keys == ["cat/2.jpg"]
    with pytest.raises(InputError, match=r"holds the parts train, val: .* --split"):
        open_source(str(tmp_path))


def test_the_parts_inside_a_tar(make: type, tmp_path: Path) -> None:
    place = str(make.write_tar(tmp_path / "a.tar", ["train/cat/1.jpg", "val/cat/2.jpg", "x.jpg"]))
    assert open_images(place, part="train").keys == ["cat/1.jpg"]
    assert open_images(place, part="val").keys == ["cat/2.jpg"]


def test_tars_are_not_nested_without_end(make: type, tmp_path: Path) -> None:
    content = {"1.jpg": b""}
    for depth in range(5):
        place = make.write_tar(tmp_path / f"{depth}.tar", content)
        content = {f"{depth}.tar": place.read_bytes()}
    with pytest.raises(InputError, match="more than 3 deep"):
        open_source(str(place))


def test_a_gzip_bomb_is_stopped_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(bytes(64 << 20), 1))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(tar_module, "_ALWAYS_ALLOWED", 1 << 20)
    with pytest.raises(InputError, match="more than 100 times its size"):
        open_source(str(tmp_path / "bomb.tar.gz"))
    assert not os.listdir(tmp_path / "temporary")  # noqa: PTH208


def test_a_disk_without_space_to_unpack_is_said(
    make: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make.write_tar(tmp_path / "a.tar.gz", ["cat/1.jpg"])
    monkeypatch.setattr(tar_module, "_KEPT_FREE", 1 << 62)
    with pytest.raises(InputError, match=r"no space to unpack .*a.tar.gz: set TMPDIR"):
        open_source(str(place))


def test_numbered_shards_without_notes_have_no_classes(make: type, tmp_path: Path) -> None:
    for name in ("shard-0000", "shard-0001", "cats", "dogs"):
        make.write_tar(tmp_path / f"{name}.tar", [f"{name}.png"])
    shards = open_source(f"{tmp_path}/shard-*.tar")
    assert (list(shards.labels), shards.class_names) == ([-1, -1], ())
    assert "2 images without classes" in shards.found.line()
    assert open_source(f"{tmp_path}/*s.tar").class_names == ("cats", "dogs")


def test_synsets_are_classes_as_tars_and_as_folders_of_one(make: type, tmp_path: Path) -> None:
    synsets = ("n01440764", "n01443537", "n01484850")
    for synset in synsets:
        make.write_tar(
            tmp_path / "tars" / f"{synset}.tar", [f"{synset}_1.JPEG", f"{synset}_2.JPEG"]
        )
    make.write_tar(tmp_path / "one.tar", [f"{synset}/{synset}_1.JPEG" for synset in synsets])
    for place in ("tars", "one.tar", f"tars/{synsets[0]}.tar"):
        source = open_source(str(tmp_path / place))
        assert source.found.unlabeled == 0
        assert source.class_names == synsets or place.startswith("tars/")


def test_tars_are_not_kept_open(make: type, tmp_path: Path) -> None:
    for number in range(5):
        make.write_tar(tmp_path / f"shard-{number:04d}.tar", [f"{number}.png"])
    source = open_source(f"{tmp_path}/shard-*.tar")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for index in range(5):
        source.read(index)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
