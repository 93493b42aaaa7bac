"""What the doctor says of a data set."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tokenlabel.data.check import find_problems
from tokenlabel.data.open import open_source


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_sound_data_set_has_no_problem(make: type, tmp_path: Path) -> None:
    files = {f"{name}/{i}.png": picture(i) for name in "ab" for i in range(3)}
    assert not list(find_problems(open_source(str(make.write_files(tmp_path, files)))))


def test_each_kind_of_problem_is_one_line(make: type, tmp_path: Path) -> None:
    files = {f"a/{i}.png": picture(i) for i in range(3)}
    files |= {
        "a/black.png": make.encoded(0),
        "b/cut.png": picture(9)[:60],
        "a/x.heic": b"",
        "a/t.txt": b"",
    }
    assert list(find_problems(open_source(str(make.write_files(tmp_path, files))))) == [
        "1 classes have fewer than 2 images: b",
        "1 pictures are not read: Pillow decodes no .heic here; convert them",
        "1 of 5 images looked into cannot be read, b/cut.png for one: repair or remove them",
        "1 of 5 images looked into hold one value only: a/black.png",
    ]
