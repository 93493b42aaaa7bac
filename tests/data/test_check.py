"""What the doctor says of a data set."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tokenlabel.data.check import check_images
from tokenlabel.data.open import open_source


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_sound_data_set_has_no_problem(make: type, tmp_path: Path) -> None:
    files = {f"{name}/{i}.png": picture(10 * ord(name) + i) for name in "ab" for i in range(3)}
    checked = check_images({"data": open_source(str(make.write_files(tmp_path, files)))})
    assert checked.problems == ()
    assert (checked.images, checked.per_second > 0) == (6, True)


def test_each_kind_of_problem_is_one_line(make: type, tmp_path: Path) -> None:
    files = {f"a/{i}.png": picture(i) for i in range(3)}
    files |= {
        "a/black.png": make.encoded(0),
        "b/cut.png": picture(9)[:60],
        "a/x.heic": b"",
        "a/t.txt": b"",
    }
    checked = check_images({"data": open_source(str(make.write_files(tmp_path, files)))})
    assert list(checked.problems) == [
        "1 classes have fewer than 2 images: b",
        "1 pictures are not read: Pillow decodes no .heic here; convert them",
        "1 of 5 images cannot be read: b/cut.png; repair or remove them",
        "1 of 5 images hold one value only: a/black.png",
    ]


def test_small_classes_are_named_beside_large_ones(make: type, tmp_path: Path) -> None:
    counts = {"a": 60, "b": 60, "c": 2}
    files = {
        f"{name}/{i}.png": picture(1000 * ord(name) + i)
        for name, count in counts.items()
        for i in range(count)
    }
    checked = check_images({"data": open_source(str(make.write_files(tmp_path, files)))})
    assert checked.problems == ("1 classes have few images where others have 60: c (2)",)


def test_copies_are_found_wherever_they_lie(make: type, tmp_path: Path) -> None:
    """Files that are equal; and, between the parts, one scene in another format and size."""
    files = {
        f"train/{name}/{i}.png": picture(ord(name) + 10 * i) for name in "ab" for i in range(3)
    }
    scene = Image.open(io.BytesIO(picture(77))).resize((90, 80), Image.Resampling.BICUBIC)
    for name, size in (("train/a/scene.png", (90, 80)), ("val/a/scene.jpg", (120, 100))):
        buffer = io.BytesIO()
        kind = "png" if name.endswith("png") else "jpeg"
        scene.resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
        files[name] = buffer.getvalue()
    files |= {
        "val/b/own.png": picture(5000),
        "val/b/other.png": picture(5001),
        "val/b/same.png": files["train/b/0.png"],
        "train/b/again.png": files["train/b/1.png"],
        "train/b/twice.png": files["train/a/1.png"],
    }
    root = str(make.write_files(tmp_path, files))
    parts = {part: open_source(root, part) for part in ("train", "val")}
    problems = check_images(parts).problems
    assert [line for line in problems if "few" not in line] == [
        "1 images are also in another part, where they judge what was learned from them: remove them"
        " from one (b/same.png and b/0.png)",
        "1 images look like one in another part: is it the same scene (a/scene.jpg and a/scene.png)",
        "1 images are in two classes: keep the right one (b/twice.png and a/1.png)",
        "1 images come twice in their class: remove the copies (b/again.png and b/1.png)",
    ]
