"""WebDataset shards: which note belongs to which image, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokenlabel.data.open import open_source
from tokenlabel.errors import InputError


def opened(make: type, tmp_path: Path, files: dict[str, bytes]) -> object:
    return open_source(str(make.write_tar(tmp_path / "shard-0.tar", files)))


def test_names_with_dots_pair_with_their_own_notes(make: type, tmp_path: Path) -> None:
    files = {}
    for i in range(4):
        files |= {f"cam1.{i:03d}.jpg": b"image", f"cam1.{i:03d}.cls": str(i % 2).encode()}
    source = opened(make, tmp_path, files)
    assert source.keys == ["cam1.000.jpg", "cam1.001.jpg", "cam1.002.jpg", "cam1.003.jpg"]
    assert list(source.labels) == [0, 1, 0, 1]
    assert source.class_names == ("0", "1")


def test_the_first_dot_counts_where_it_pairs(make: type, tmp_path: Path) -> None:
    source = opened(make, tmp_path, {"01.left.jpg": b"", "01.right.jpg": b"", "01.cls": b"1"})
    assert list(source.labels) == [1, 1]


def test_notes_that_belong_to_no_image_are_an_error(make: type, tmp_path: Path) -> None:
    files = {"a.jpg": b"", "a.cls": b"0", "b.x.cls": b"0", "c.cls": b"1"}
    with pytest.raises(InputError, match=r"2 of 3 .cls notes in .*shard-0.tar belong to no image"):
        opened(make, tmp_path, files)


def test_images_without_a_note_are_an_error_that_counts_them(make: type, tmp_path: Path) -> None:
    files = {"a.jpg": b"", "a.cls": b"0", "b.jpg": b"", "c.jpg": b""}
    with pytest.raises(InputError, match=r"2 of 3 samples in .* have no class, b.jpg for one"):
        opened(make, tmp_path, files)


@pytest.mark.parametrize(
    ("notes", "labels", "class_names"),
    [
        ([b"2", b"0", b"2"], [2, 0, 2], ("0", "1", "2")),
        ([b"-1", b"0\n", b"null"], [-1, 0, -1], ("0",)),
        ([b"dog", b"cat", b""], [1, 0, -1], ("cat", "dog")),
        ([b'"9"', b'"10"', b'{"label": "9"}'], [0, 1, 0], ("9", "10")),
    ],
)
def test_numbers_names_and_nothing_in_notes(
    make: type, tmp_path: Path, notes: list[bytes], labels: list[int], class_names: tuple[str, ...]
) -> None:
    files = {}
    for i, note in enumerate(notes):
        files |= {f"{i}.jpg": b"", f"{i}.cls": note}
    source = opened(make, tmp_path, files)
    assert list(source.labels) == labels
    assert source.class_names == class_names
    assert source.found.unlabeled == labels.count(-1)


@pytest.mark.parametrize("note", [b"-2", b"1.5", b"true", b"[1]", b"99999999999", b"{}"])
def test_values_that_are_no_class_are_refused(make: type, tmp_path: Path, note: bytes) -> None:
    with pytest.raises(InputError, match=r"class") as refused:
        opened(make, tmp_path, {"a.jpg": b"", "a.cls": note, "b.jpg": b"", "b.cls": b"1"})
    assert "\n" not in str(refused.value)


def test_json_files_that_say_no_class_leave_the_folders_to_say_it(
    make: type, tmp_path: Path
) -> None:
    about = json.dumps({"camera": "x"}).encode()
    files = {"cat/1.jpg": b"", "cat/1.json": about, "dog/1.jpg": b"", "all.json": b"[" * 100_000}
    source = opened(make, tmp_path, files)
    assert source.class_names == ("cat", "dog")
    assert source.found.left_out == {"files ending in .json": 2}


def test_a_sample_in_two_shards_is_refused(make: type, tmp_path: Path) -> None:
    for number in range(2):
        make.write_tar(tmp_path / f"s-{number}.tar", {"a.jpg": b"", "a.cls": b"0"})
    with pytest.raises(InputError, match=r"1 keys of samples in .* occur more than once, a.jpg"):
        open_source(f"{tmp_path}/s-{{0..1}}.tar")
