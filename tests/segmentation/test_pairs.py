"""Which mask belongs to which image, what its numbers mean, and what is said when they do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokenlabel.data.class_list import read_class_names
from tokenlabel.errors import InputError
from tokenlabel.segmentation.classes import IGNORED, ClassList, cityscapes_classes
from tokenlabel.segmentation.files import read_image, read_pair
from tokenlabel.segmentation.pairs import find_images, open_pairs


def picture(path: Path, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


# -- layouts ---------------------------------------------------------------------------------------


def test_ade20k_layout_counts_classes_from_one_and_ignores_zero(scenes: Path) -> None:
    pairs = open_pairs(scenes, "training")
    assert [pair.key for pair in pairs.items] == [f"s{i}.png" for i in range(8)]
    _, labels = read_pair(pairs.items[0], pairs.classes)
    mask = np.asarray(Image.open(pairs.items[0].mask)).astype(int)
    assert (labels == mask - 1).all()
    assert labels[0, 0] == IGNORED


def test_hidden_files_are_no_pairs_and_the_order_is_that_of_all_images(tmp_path: Path) -> None:
    for name in ("a2", "a10", "A2", "b"):
        picture(tmp_path / f"{name}.jpg")
        picture(tmp_path / f"{name}.png", mode="L")
    picture(tmp_path / ".ipynb_checkpoints" / "a2-checkpoint.jpg")
    picture(tmp_path / "._a2.jpg")
    (tmp_path / "classes.json").write_text('["one", "two"]')
    pairs = open_pairs(tmp_path, "training")
    assert [pair.key for pair in pairs.items] == ["A2.jpg", "a2.jpg", "a10.jpg", "b.jpg"]
    assert len(find_images(tmp_path)) == 8


def test_a_usual_short_name_of_a_split_finds_it(scenes: Path) -> None:
    assert len(open_pairs(scenes, "val")) == 3
    with pytest.raises(InputError, match=r"no split 'trainning'.*did you mean 'training'"):
        open_pairs(scenes, "trainning")


def test_class_list_and_ignore_index_may_be_given(scenes: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("nothing\nwall\ngrass\npool\n")
    pairs = open_pairs(scenes, "training", class_file=names, ignore_index=255)
    _, labels = read_pair(pairs.items[0], pairs.classes)
    assert labels[0, 0] == 0
    assert labels.max() == 3


@pytest.mark.parametrize(
    ("ending", "road"), [("_gtFine_labelTrainIds.png", 0), ("_gtFine_labelIds.png", 7)]
)
def test_cityscapes_layout_reads_train_ids_and_full_ids(
    tmp_path: Path, ending: str, road: int
) -> None:
    for city in ("ulm", "bonn"):
        stem = f"{city}_000000_000019"
        picture(tmp_path / "leftImg8bit" / "train" / city / f"{stem}_leftImg8bit.png")
        mask = tmp_path / "gtFine" / "train" / city / f"{stem}{ending}"
        mask.parent.mkdir(parents=True)
        values = np.full((4, 6), road, np.uint8)
        values[0] = 255
        Image.fromarray(values).save(mask)
    pairs = open_pairs(tmp_path, "training")
    assert [pair.key.split("/")[0] for pair in pairs.items] == ["bonn", "ulm"]
    assert len(pairs.classes) == 19
    _, labels = read_pair(pairs.items[0], pairs.classes)
    assert (labels[0] == IGNORED).all()
    assert (labels[1:] == 0).all()


def test_void_ids_of_cityscapes_are_unlabelled() -> None:
    classes = cityscapes_classes(train_ids=False)
    labels = classes.decode(np.array([[0, 4, 26, 29, 33]]), "m")
    assert labels.tolist() == [[IGNORED, IGNORED, 13, IGNORED, 18]]


def test_images_and_masks_side_by_side(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "a.png", mode="L")
    picture(tmp_path / "b.png")
    picture(tmp_path / "b_mask.png", mode="L")
    (tmp_path / "classes.json").write_text('["one", "two"]')
    pairs = open_pairs(tmp_path, "training")
    assert [(p.image.name, p.mask.name) for p in pairs.items] == [
        ("a.jpg", "a.png"),
        ("b.png", "b_mask.png"),
    ]
    assert pairs.classes.ignored == (255,)


# -- class lists -----------------------------------------------------------------------------------


def test_ade20k_table_of_names_is_read(tmp_path: Path) -> None:
    file = tmp_path / "objectInfo150.txt"
    file.write_text(
        "Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t11\t1\twall\n2\t0.1\t6\t1\tsky, heaven\n"
    )
    assert read_class_names(tmp_path) == ("wall", "sky, heaven")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "must hold a list"),
        ("[1, 2]", "should be a list of names"),
        ("[", "line 1: this is not valid JSON"),
        ('["a", "a"]', "names 'a' twice"),
        ('["a"]', "names 1 classes"),
    ],
)
def test_faulty_class_lists_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_class_names(tmp_path)


def test_a_missing_class_list_is_told(scenes: Path) -> None:
    (scenes / "classes.json").unlink()
    with pytest.raises(InputError, match="has no class list"):
        open_pairs(scenes, "training")


@pytest.mark.parametrize("ignore_index", [0, 2, 255])
def test_encoded_labels_decode_to_themselves(ignore_index: int) -> None:
    classes = ClassList.counted([f"c{i}" for i in range(5)], ignore_index)
    labels = np.array([[IGNORED, 0, 1], [2, 3, 4]], np.int16)
    assert (classes.decode(classes.encode(labels), "m") == labels).all()


def test_many_classes_take_sixteen_bits(tmp_path: Path) -> None:
    classes = ClassList.counted([str(i) for i in range(847)], 0)
    labels = np.arange(-1, 847, dtype=np.int16).reshape(8, 106)
    file = tmp_path / "wide.png"
    Image.fromarray(classes.encode(labels)).save(file)
    picture(tmp_path / "wide.jpg", (106, 8))
    (tmp_path / "classes.json").write_text(json.dumps(list(classes.names)))
    pairs = open_pairs(tmp_path, "training", ignore_index=0)
    assert (read_pair(pairs.items[0], pairs.classes)[1] == labels).all()


# -- what users get wrong --------------------------------------------------------------------------


def test_scenes_without_masks_and_masks_without_scenes_are_counted(scenes: Path) -> None:
    masks, images = (scenes / part / "training" for part in ("annotations", "images"))
    for name in ("s3.png", "s5.png"):
        (masks / name).unlink()
    (images / "s1.png").unlink()
    (images / "notes.txt").write_text("not an image")
    pairs = open_pairs(scenes, "training")
    assert [pair.key for pair in pairs.unmasked] == ["s3.png", "s5.png"]
    assert [pair.key for pair in pairs.items] == [f"s{i}.png" for i in (0, 2, 4, 6, 7)]
    assert pairs.line() == (
        "5 scenes with masks; 2 without a mask, such as s3.png; left out: 1 files ending in .txt,"
        " 1 masks without an image"
    )
    for mask in masks.iterdir():
        mask.unlink()
    with pytest.raises(InputError, match=r"none of 7 images .*mask: that of .*s0\.png should be"):
        open_pairs(scenes, "training")


def test_beside_each_other_too_what_has_no_partner_is_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "a_mask.png", "c_mask.png"):
        picture(tmp_path / "train" / name, mode="L")
    (tmp_path / "classes.json").write_text('["one", "two"]')
    pairs = open_pairs(tmp_path, "training")
    assert [pair.key for pair in pairs.items] == ["a.png"]
    assert [pair.key for pair in pairs.unmasked] == ["b.png"]
    assert dict(pairs.passed_over) == {"masks without an image": 1}


def test_cityscapes_masks_of_other_kinds_are_no_lonely_masks(tmp_path: Path) -> None:
    images, masks = tmp_path / "leftImg8bit/train/ulm", tmp_path / "gtFine/train/ulm"
    for stem in ("ulm_0", "ulm_1"):
        picture(images / f"{stem}_leftImg8bit.png")
    for stem in ("ulm_0", "ulm_2"):
        for ending in ("labelTrainIds", "color"):
            picture(masks / f"{stem}_gtFine_{ending}.png", mode="L")
    pairs = open_pairs(tmp_path, "training")
    assert [pair.key for pair in pairs.items] == ["ulm/ulm_0_leftImg8bit.png"]
    assert len(pairs.unmasked) == 1
    assert dict(pairs.passed_over) == {"masks without an image": 1}


def first_pair(root: Path) -> None:
    pairs = open_pairs(root, "training")
    read_pair(pairs.items[0], pairs.classes)


def test_values_out_of_range_are_named_with_their_place(
    scenes: Path, replace_mask: Callable[[Image.Image], Path]
) -> None:
    values = np.ones((48, 64), np.uint8)
    values[7, 9] = 37
    replace_mask(Image.fromarray(values))
    with pytest.raises(InputError, match=r"s0\.png holds the value 37 \(row 7, column 9\).*1 to 3"):
        first_pair(scenes)


def test_sizes_that_differ_are_named(
    scenes: Path, replace_mask: Callable[[Image.Image], Path]
) -> None:
    replace_mask(Image.new("L", (60, 48), 1))
    with pytest.raises(InputError, match=r"64x48 pixels, but its mask .* has 60x48"):
        first_pair(scenes)


def test_coloured_masks_are_refused(
    scenes: Path, replace_mask: Callable[[Image.Image], Path]
) -> None:
    replace_mask(Image.new("RGB", (64, 48)))
    with pytest.raises(InputError, match=r"color picture \(RGB\)"):
        first_pair(scenes)


def test_palette_masks_are_read_by_index(
    scenes: Path, replace_mask: Callable[[Image.Image], Path]
) -> None:
    indexed = Image.fromarray(np.full((48, 64), 2, np.uint8), "P")
    indexed.putpalette([255, 0, 0] * 256)
    replace_mask(indexed)
    pairs = open_pairs(scenes, "training")
    assert (read_pair(pairs.items[0], pairs.classes)[1] == 1).all()


def test_damaged_files_are_named(scenes: Path) -> None:
    (scenes / "annotations" / "training" / "s0.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(InputError, match=r"cannot read mask .*s0\.png"):
        first_pair(scenes)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_grey_and_transparent_images_become_rgb(tmp_path: Path, mode: str) -> None:
    file = tmp_path / "image.png"
    picture(file, mode=mode)
    assert read_image(file).shape == (4, 6, 3)


def test_folders_that_are_no_data_set_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is not a folder"):
        open_pairs(tmp_path / "nowhere", "training")
    with pytest.raises(InputError, match="no split 'training'"):
        open_pairs(tmp_path, "training")
