"""Every form of a data set yields the same keys, labels, names and bytes."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data.readers.reader_image_folder import ReaderImageFolder

from tokenlabel.data.open import open_source
from tokenlabel.data.source import ImageSource, source_fingerprint
from tokenlabel.errors import InputError

CLASSES = ["cat", "class10", "class9"]


def encoded(value: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((12, 16, 3), value, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    for i, name in enumerate(CLASSES):
        (root / "train" / name).mkdir(parents=True)
        for j in range(3):
            (root / "train" / name / f"im{j}.jpg").write_bytes(encoded(20 * i + j))
        (root / "train" / name / "notes.txt").write_text("not an image")
    return root


def tar_of(folder: Path, target: Path, members: list[Path] | None = None) -> Path:
    with tarfile.open(target, "w:gz" if target.suffix in (".gz", ".tgz") else "w") as tar:
        for path in members or sorted(folder.iterdir()):
            tar.add(path, path.relative_to(folder).as_posix())
    return target


def contents(source: ImageSource) -> list[tuple[str, str, bytes]]:
    return [
        (key, source.class_names[label], source.read(i))
        for i, (key, label) in enumerate(zip(source.keys, source.labels, strict=True))
    ]


def test_folder_orders_and_classes_as_timm_does(folder: Path) -> None:
    source, timm_reader = open_source(str(folder), "train"), ReaderImageFolder(folder / "train")
    assert source.class_names == ("cat", "class9", "class10")
    assert source.keys[0] == "cat/im0.jpg"
    assert [timm_reader.filename(i) for i in range(9)] == list(source.keys)
    assert [timm_reader.samples[i][1] for i in range(9)] == list(source.labels)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_archives_equal_the_folder(folder: Path, tmp_path: Path, suffix: str) -> None:
    plain = open_source(str(folder), "train")
    packed = open_source(str(tar_of(folder, tmp_path / f"packed{suffix}")))
    assert contents(packed) == contents(plain)
    assert source_fingerprint(packed) == source_fingerprint(plain)
    assert contents(pickle.loads(pickle.dumps(packed))) == contents(plain)


def test_tars_of_classes_equal_the_folder(folder: Path, tmp_path: Path) -> None:
    plain = open_source(str(folder / "train"))
    (tmp_path / "tars").mkdir()
    for name in CLASSES:
        tar_of(folder / "train" / name, tmp_path / "tars" / f"{name}.tar")
    assert contents(open_source(str(tmp_path / "tars"))) == contents(plain)
    nested = tar_of(tmp_path / "tars", tmp_path / "all.tar")
    assert contents(open_source(str(nested))) == contents(plain)


def test_a_split_may_be_a_tar_in_the_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "splits").mkdir()
    tar_of(folder, tmp_path / "splits" / "train.tar.gz")
    tar_of(folder, tmp_path / "splits" / "val.tar.gz")
    found = open_source(str(tmp_path / "splits"), "train")
    assert contents(found) == contents(open_source(str(folder), "train"))


def write_shards(root: Path, note: str) -> None:
    root.mkdir()
    for shard in range(2):
        with tarfile.open(root / f"shard-{shard:02d}.tar", "w") as tar:
            for i in range(3):
                key, label = f"{shard}{i}", 2 * shard
                said = str(label) if note == "cls" else json.dumps({"label": label})
                for name, data in (
                    (f"{key}.png", encoded(i, "PNG")),
                    (f"{key}.{note}", said.encode()),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("note", ["cls", "json"])
@pytest.mark.parametrize("pattern", ["shard-{00..01}.tar", "shard-*.tar"])
def test_webdataset_shards(tmp_path: Path, note: str, pattern: str) -> None:
    write_shards(tmp_path / "wds", note)
    for location in (str(tmp_path / "wds" / pattern), f"file://{tmp_path}/wds/{pattern}"):
        source = open_source(location)
        assert list(source.keys) == ["00.png", "01.png", "02.png", "10.png", "11.png", "12.png"]
        assert list(source.labels) == [0, 0, 0, 2, 2, 2]
        assert source.class_names == ("0", "1", "2")
        assert source.read(4) == encoded(1, "PNG")


def test_hugging_face_forms(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    plain = open_source(str(folder), "train")
    names = [f"{i}.jpg" for i in range(len(plain))]
    table = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": plain.read(i), "path": name} for i, name in enumerate(names)],
            "label": list(plain.labels),
        },
        features=datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(plain.class_names))}
        ),
    )
    table.to_parquet(tmp_path / "parquet" / "train.parquet")
    table.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=table, test=table).save_to_disk(tmp_path / "parts")
    forms = [
        open_source(str(tmp_path / "parquet" / "train.parquet")),
        open_source(f"file://{tmp_path}/parquet/train.parquet"),
        open_source(str(tmp_path / "parquet")),
        open_source(str(tmp_path / "saved")),
        open_source(str(tmp_path / "parts"), "train"),
    ]
    for form in forms:
        assert list(form.keys) == names
        assert [c[1:] for c in contents(form)] == [c[1:] for c in contents(plain)]
    with pytest.raises(InputError, match=r"no split 'tset'.*did you mean 'test'.*test, train"):
        open_source(str(tmp_path / "parts"), "tset")
    with pytest.raises(InputError, match=r"holds the parts test, train: say which .* --split"):
        open_source(str(tmp_path / "parts"))


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "bad.tar").write_bytes(b"not a tar" * 100)
    (tmp_path / "bad.tar.gz").write_bytes(b"not a tar" * 100)
    (folder / "val" / "cat").mkdir(parents=True)
    (folder / "val" / "cat" / "a.jpg").write_bytes(encoded(1))
    for location, split, message in [
        (tmp_path / "empty", None, "no images in .*empty"),
        (tmp_path / "emty", None, r"does not exist \(did you mean .*empty"),
        (tmp_path / "file.txt", None, "is not a data set"),
        (tmp_path / "bad.tar", None, "cannot read .*bad.tar as a tar file"),
        (tmp_path / "bad.tar.gz", None, "cannot read .*bad.tar.gz as a tar file"),
        (tmp_path / "none-*.tar", None, "no file matches"),
        (folder, None, "holds the parts train, val: say which one to read with --split"),
        (folder, "trian", r"no split 'trian'.*\(did you mean 'train'\?\): it holds train, val"),
    ]:
        with pytest.raises(InputError, match=message):
            open_source(str(location), split)
    (folder / "train" / "stray.jpg").write_bytes(encoded(1))
    with pytest.raises(InputError, match="stray"):
        open_source(str(folder / "train"))


def test_vanished_and_cut_files_are_named(folder: Path, tmp_path: Path) -> None:
    plain = open_source(str(folder), "train")
    (folder / "train" / "cat" / "im0.jpg").unlink()
    with pytest.raises(InputError, match=r"cannot read image .*cat/im0"):
        plain.read(0)
    archive = tar_of(folder, tmp_path / "a.tar")
    packed = open_source(str(archive))
    archive.write_bytes(archive.read_bytes()[:600])
    with pytest.raises(InputError, match="was cut short"):
        packed.read(len(packed) - 1)


def test_unpacked_archives_are_removed_with_their_source(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "packed.tar.gz"
    with gzip.open(archive, "wb") as out, tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(folder / "train", "train")
    source = open_source(str(archive))
    temporary = Path(source.plain[0])  # type: ignore[attr-defined]
    assert temporary.is_file()
    del source
    assert not temporary.exists()
