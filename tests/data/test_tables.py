"""Hugging Face tables: what stands in the label column, and the parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokenlabel.data.open import open_images, open_source
from tokenlabel.data.source import require_labels
from tokenlabel.errors import InputError

datasets = pytest.importorskip("datasets")


def table(make: type, labels: list[Any], kind: Any = None, names: list[str] | None = None) -> Any:
    names = names or [f"{i}.png" for i in range(len(labels))]
    features = {"image": datasets.Image(), "label": kind or datasets.Value("int64")}
    images = [{"bytes": make.encoded(i), "path": name} for i, name in enumerate(names)]
    return datasets.Dataset.from_dict(
        {"image": images, "label": labels}, features=datasets.Features(features)
    )


def saved(make: type, folder: Path, *arguments: Any, **options: Any) -> str:
    table(make, *arguments, **options).save_to_disk(folder / "saved")
    return str(folder / "saved")


def test_minus_one_and_none_are_images_without_a_class(make: type, tmp_path: Path) -> None:
    kind = datasets.ClassLabel(names=["cat", "dog"])
    source = open_source(saved(make, tmp_path, [0, -1, 1, None, 0], kind))
    assert list(source.labels) == [0, -1, 1, -1, 0]
    assert source.found.unlabeled == 2
    labeled = require_labels(source, "D")
    assert labeled.keys == ["0.png", "2.png", "4.png"]
    assert [labeled.read(i) for i in range(3)] == [source.read(i) for i in (0, 2, 4)]
    assert labeled.found.line() == "3 images in 2 classes; left out: 2 without a class"


def test_strings_are_class_names(make: type, tmp_path: Path) -> None:
    place = saved(make, tmp_path, ["b", "A", None, "a"], datasets.Value("string"))
    source = open_source(place)
    assert source.class_names == ("A", "a", "b")
    assert list(source.labels) == [2, 0, -1, 1]


def test_a_table_without_any_class_is_for_verbs_that_need_none(make: type, tmp_path: Path) -> None:
    source = open_source(saved(make, tmp_path, [-1, -1]))
    assert source.class_names == ()
    with pytest.raises(InputError, match="none of the 2 images of D has a class"):
        require_labels(source, "D")


def test_a_number_beyond_the_classes_is_refused(make: type, tmp_path: Path) -> None:
    place = saved(make, tmp_path, [0, 1, -5])
    with pytest.raises(InputError, match=r"2.png in .*saved has the class number -5"):
        open_source(place)


def test_rows_keep_their_images_where_a_table_was_shuffled(make: type, tmp_path: Path) -> None:
    shuffled = table(make, list(range(6))).select([4, 1, 5])
    shuffled.save_to_disk(tmp_path / "saved")
    source = open_source(str(tmp_path / "saved"))
    assert source.keys == ["4.png", "1.png", "5.png"]
    assert list(source.labels) == [4, 1, 5]
    assert source.read(0) == make.encoded(4)


def test_the_parts_of_a_folder_of_parquet_files(make: type, tmp_path: Path) -> None:
    for part, count in (("train", 3), ("validation", 2)):
        file = tmp_path / "data" / f"{part}-00000-of-00001.parquet"
        table(make, list(range(count))).to_parquet(file)
    assert len(open_images(str(tmp_path), part="train")) == 3
    assert len(open_images(str(tmp_path), part="val")) == 2
    assert len(open_images(str(tmp_path), "val")) == 2
    assert open_images(str(tmp_path), "val").found.part == "validation"
    with pytest.raises(InputError, match=r"holds the parts train, validation: .* --split"):
        open_source(str(tmp_path))


def test_a_damaged_parquet_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"cannot open data set .*a.parquet: ") as refused:
        open_source(str(tmp_path / "a.parquet"))
    assert "\n" not in str(refused.value)
