"""Images that a CSV file lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenlabel.data.open import open_images, open_source
from tokenlabel.errors import InputError


def listed(make: type, folder: Path, text: str) -> str:
    make.write_files(folder, ["a/1.png", "a/2.png", "b/1.png"])
    (folder / "list.csv").write_text(text)
    return str(folder / "list.csv")


def test_names_numbers_and_nothing(make: type, tmp_path: Path) -> None:
    text = "path,label\na/2.png,dog\nb/1.png,cat\na/1.png,\n"
    source = open_source(listed(make, tmp_path, text))
    assert source.keys == ["a/2.png", "b/1.png", "a/1.png"]
    assert source.class_names == ("cat", "dog")
    assert list(source.labels) == [1, 0, -1]
    assert source.read(1) == make.encoded(2)
    source = open_source(listed(make, tmp_path, "file_name,class\na/2.png,2\na/1.png,-1\n"))
    assert list(source.labels) == [2, -1]
    assert source.class_names == ("0", "1", "2")


def test_a_column_of_parts(make: type, tmp_path: Path) -> None:
    place = listed(make, tmp_path, "path,label,split\na/1.png,x,train\nb/1.png,x,test\n")
    assert open_images(place, part="train").keys == ["a/1.png"]
    assert open_images(place, part="val").keys == ["b/1.png"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,label\na,b\n", "needs a heading with a column 'path'"),
        ("path,label\na/1.png\n", "line 2 of .*list.csv has more or fewer values"),
        ("path,label\na/1.png,x\na/1.png,y\n", "lists a/1.png twice, in lines 2 and 3"),
        ("path,label\n../1.png,x\n", "line 2 of .*list.csv holds '../1.png', which leads out"),
        ("path,label\n", "lists no images|needs a heading"),
    ],
)
def test_mistakes_are_named_with_their_line(
    make: type, tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        open_source(listed(make, tmp_path, text))
