"""One walk: what is data and what is passed over, with its reason."""

from __future__ import annotations

import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tokenlabel.data.open import open_source
from tokenlabel.data.rules import AS_STORED
from tokenlabel.data.walk import image_endings, is_image, walk
from tokenlabel.errors import InputError


def walked(root: Path) -> tuple[list[str], dict[str, int]]:
    left_out: Counter[str] = Counter()
    return sorted(walk(root, left_out)), dict(left_out)


def test_hidden_files_and_folders_are_no_data(make: type, tmp_path: Path) -> None:
    root = make.write_files(
        tmp_path / "set",
        [
            "cat/1.jpg",
            "cat/._1.jpg",
            ".ipynb_checkpoints/1.jpg",
            "__MACOSX/cat/1.jpg",
            "a/.b/1.jpg",
        ],
    )
    assert walked(root) == (["cat/1.jpg"], {"hidden": 4})


def test_only_regular_files_are_images(make: type, tmp_path: Path) -> None:
    root = make.write_files(tmp_path / "set", ["cat/1.jpg"])
    os.mkfifo(root / "cat" / "pipe.jpg")
    (root / "cat" / "broken.jpg").symlink_to(root / "nothing")
    (root / "cat" / "linked.jpg").symlink_to(root / "cat" / "1.jpg")
    assert walked(root) == (["cat/1.jpg", "cat/linked.jpg"], {"not regular files": 2})


def test_each_real_folder_is_read_once_by_its_own_path(make: type, tmp_path: Path) -> None:
    make.write_files(tmp_path, ["beside/other/1.jpg", "far/dog/1.jpg"])
    root = make.write_files(tmp_path / "set", ["cat/1.jpg"])
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "further-up").symlink_to(tmp_path)
    (root / "a-link").symlink_to(root / "cat")
    (root / "dog").symlink_to(tmp_path / "far" / "dog")
    found, left_out = walked(root)
    assert found == ["cat/1.jpg", "dog/1.jpg"]
    assert left_out == {"links to folders that are read already": 3}


def test_files_not_read_are_counted_by_their_ending(make: type, tmp_path: Path) -> None:
    files = ["a/1.PNG", "a/1.webp", "a/notes.txt", "a/b.TXT", "a/raw.cr2", "a/readme"]
    found, left_out = walked(make.write_files(tmp_path, files))
    assert found == ["a/1.PNG", "a/1.webp"]
    assert left_out == {
        "files ending in .txt": 2,
        "files ending in .cr2": 1,
        "files without an ending": 1,
    }


def test_what_pillow_decodes_is_an_image() -> None:
    assert {".jpg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"} <= image_endings()
    assert not any(map(is_image, ["a.eps", "a.h5", "a.mpg", "a.psd", "a.jpg.txt", "jpg", ".jpg"]))


def test_a_name_that_is_not_utf8_is_one_clear_line(make: type, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/cat/caf\xe9.jpg")).write_bytes(make.encoded(1))
    with pytest.raises(InputError, match=r"not UTF-8: cat/caf\\xe9.jpg: rename it$"):
        walked(tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(
    make: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.write_files(tmp_path, ["cat/1.jpg", "dog/1.jpg"])
    listed = os.scandir

    def denied(folder: Path) -> object:
        if Path(folder).name == "dog":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(InputError, match=r"cannot list the folder .*dog: Permission denied"):
        walked(tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_are_images_where_there_are_no_pictures(
    make: type, tmp_path: Path, packed: bool
) -> None:
    file = io.BytesIO()
    np.save(file, np.zeros((4, 4, 2), np.uint8))
    arrays = {"a/0.npy": file.getvalue(), "b/1.npy": file.getvalue()}
    for name, files in (("alone", arrays), ("beside", arrays | {"a/0.png": make.encoded(0)})):
        place = tmp_path / name
        if packed:
            make.write_tar(place := place.with_suffix(".tar"), files)
        else:
            make.write_files(place, files)
        source = open_source(str(place))
        assert list(source.keys) == (["a/0.npy", "b/1.npy"] if name == "alone" else ["a/0.png"])
        assert source.found.left_out == ({} if name == "alone" else {"files ending in .npy": 2})
        if name == "alone":
            assert source.found.modes == {"uint8 x 2": 2}
            assert source.rules == AS_STORED
