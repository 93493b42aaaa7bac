"""What is said of masks that hold less, or other things, than their class list."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokenlabel.data.orientation import turned
from tokenlabel.errors import InputError
from tokenlabel.segmentation.account import account_of
from tokenlabel.segmentation.files import read_pair
from tokenlabel.segmentation.pairs import open_pairs


def write_pair(root: Path, name: str, mask: np.ndarray, exif: int = 1) -> None:
    tag = Image.Exif()
    tag[0x0112] = exif
    root.mkdir(exist_ok=True)
    image = Image.fromarray(np.repeat(mask[..., None], 3, 2).astype(np.uint8) * 50)
    image.save(root / f"{name}.jpg", exif=tag, quality=95)
    Image.fromarray(mask).save(root / f"{name}_mask.png")
    (root / "classes.json").write_text(json.dumps(["background", "object"]))


def test_masks_of_0_and_255_are_not_taken_for_two_classes(tmp_path: Path) -> None:
    mask = np.zeros((10, 10), np.uint8)
    mask[:3] = 255
    write_pair(tmp_path, "a", mask)
    account = account_of(open_pairs(tmp_path, "train"))
    assert account.absent == ("object",)
    assert account.unlabeled == {255: 30}
    assert account.pixels.tolist() == [70, 0]
    missing, unlabeled = account.lines("training", orientation_applied=False)
    assert missing == "training: the class 'object' is in none of the masks."
    assert unlabeled.startswith("training: unlabeled (value 255): 30.0% of the pixels. If 255 is")
    assert account.as_dict()["absent"] == ["object"]


@pytest.mark.parametrize(
    ("classes", "share", "advised"),
    [(3, 0.1, False), (3, 0.3, True), (2, 0.1, False), (1, 0.1, True)],
)
def test_the_ignore_index_is_named_where_a_class_may_hide_in_it(
    tmp_path: Path, classes: int, share: float, advised: bool
) -> None:
    """Not where little is unlabeled, unless but one class is there, nor where no class is missing."""
    mask = np.arange(100, dtype=np.uint8).reshape(10, 10) % classes
    mask[: round(10 * share)] = 255
    write_pair(tmp_path, "a", mask)
    names = ["sky", "tree"] if classes == 2 else ["sky", "tree", "car", "fence", "pole"]
    (tmp_path / "classes.json").write_text(json.dumps(names))
    lines = account_of(open_pairs(tmp_path, "train")).lines("x", orientation_applied=False)
    assert f"x: unlabeled (value 255): {share:.1%} of the pixels." in lines[-1]
    assert ("ignore index" in lines[-1]) == advised
    if classes == 3:
        assert lines[0] == "x: the classes 'fence', 'pole' are in none of the masks."


def test_values_of_no_class_are_counted_over_all_masks(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 7), ("c", 9), ("d", 7)):
        write_pair(tmp_path, name, np.full((4, 5), value, np.uint8))
    with pytest.raises(InputError, match=r"b_mask\.png holds the value 7.*7 in 2 \(40 pixels\), 9"):
        account_of(open_pairs(tmp_path, "train"))


def test_all_is_well_without_a_word(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.array([[0, 1], [1, 0]], np.uint8))
    assert account_of(open_pairs(tmp_path, "train")).lines("x", orientation_applied=False) == []


@pytest.mark.parametrize("exif", range(1, 9))
def test_an_image_and_its_mask_turn_together(tmp_path: Path, exif: int) -> None:
    mask = np.zeros((8, 16), np.uint8)
    mask[:4, :10] = 1
    write_pair(tmp_path, "a", mask, exif)
    for orientation, expected in (("ignore", mask), ("apply", turned(mask, exif))):
        pairs = open_pairs(tmp_path, "train", orientation=orientation)  # type: ignore[arg-type]
        image, labels = read_pair(pairs.items[0], pairs.classes, pairs.rules)
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_array_equal(image[..., 0] > 25, expected > 0)
    account = account_of(pairs)
    assert account.oriented == (exif != 1)
    said = account.lines("training", orientation_applied=True)
    assert any("1 of 1 images carry an EXIF orientation, which is applied" in s for s in said) == (
        exif != 1
    )


def test_a_mask_of_the_turned_image_is_left_as_it_is(tmp_path: Path) -> None:
    mask = np.zeros((8, 16), np.uint8)
    mask[:4, :10] = 1
    write_pair(tmp_path, "a", mask, exif=6)
    Image.fromarray(turned(mask, 6)).save(tmp_path / "a_mask.png")
    pairs = open_pairs(tmp_path, "train", orientation="apply")
    image, labels = read_pair(pairs.items[0], pairs.classes, pairs.rules)
    np.testing.assert_array_equal(labels, turned(mask, 6))
    np.testing.assert_array_equal(image[..., 0] > 25, labels > 0)
    ignoring = open_pairs(tmp_path, "train")
    with pytest.raises(InputError, match="EXIF orientation 6, which is not applied"):
        read_pair(ignoring.items[0], ignoring.classes, ignoring.rules)


def test_deep_images_have_one_range_in_a_data_set(tmp_path: Path) -> None:
    for name, top in (("a", 200), ("b", 4000)):
        write_pair(tmp_path, name, np.array([[0, 1], [1, 0]], np.uint8))
        (tmp_path / f"{name}.jpg").unlink()
        Image.fromarray(np.full((2, 2), top, np.uint16)).save(tmp_path / f"{name}.png")
    pairs = open_pairs(tmp_path, "train")
    assert pairs.rules.integers == (0, 4095)
    shown = read_pair(pairs.items[0], pairs.classes, pairs.rules)[0]
    assert shown.max() == pytest.approx(200 / 4095 * 255)
