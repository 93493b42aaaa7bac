"""Masks and boxes: every cell holds the share of its area that each class fills."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel.annotators.boxes import BoxAnnotator, BoxesSpec
from tokenlabel.annotators.masks import MaskAnnotator, MasksSpec
from tokenlabel.annotators.run import run
from tokenlabel.data.open import open_source
from tokenlabel.data.orientation import turned
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelMap

PIXELS = np.zeros((8, 12, 3), np.uint8)


def masks(folder, classes, **options) -> MaskAnnotator:
    return MasksSpec(folder=folder, **options).build([str(i) for i in range(classes)])


def boxes(file, class_names, **options) -> BoxAnnotator:
    return BoxesSpec(file=file, **options).build(class_names)


def dense(label: LabelMap) -> torch.Tensor:
    """Probabilities [C, h, w] of all classes."""
    named = label.probabilities()
    rest = (1 - named.sum(0)) / max(label.num_classes - label.k, 1)
    full = rest.expand(label.num_classes, *label.grid).clone()
    return full.scatter_(0, label.classes, named)


def write_mask(folder, values, name="a.png"):
    (folder / "cat").mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(folder / "cat" / name)


def test_masks_become_area_shares(tmp_path) -> None:
    values = np.ones((8, 12), int)
    values[:, 6:] = 2
    values[4:, :2] = 3  # half of the lower left cell's columns
    values[:4, 8:] = 255
    write_mask(tmp_path, values)
    annotator = masks(tmp_path, 5, grid=(2, 3), first_value=1)
    (label,) = annotator.annotate([annotator.prepare("cat/a.jpg", PIXELS)])
    found = dense(label)
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([1.0, 0, 0, 0, 0]))
    torch.testing.assert_close(found[:, 1, 0], torch.tensor([0.5, 0, 0.5, 0, 0]))
    torch.testing.assert_close(found[:, 0, 1], torch.tensor([0.5, 0.5, 0, 0, 0]))
    torch.testing.assert_close(found[:, 0, 2], torch.full((5,), 0.2))  # unlabelled: no opinion
    torch.testing.assert_close(found[:, 1, 2], torch.tensor([0, 1.0, 0, 0, 0]))


def test_masks_that_do_not_fit_are_refused(tmp_path) -> None:
    write_mask(tmp_path, np.full((8, 12), 7))
    annotator = masks(tmp_path, 5)
    with pytest.raises(InputError, match="value 7, beyond the 5 classes"):
        annotator.prepare("cat/a.jpg", PIXELS)
    with pytest.raises(InputError, match=r"cannot read mask .*b.png"):
        annotator.prepare("cat/b.jpg", PIXELS)
    with pytest.raises(InputError, match=r"is \[8, 12\], its image \[8, 13\]"):
        annotator.prepare("cat/a.jpg", np.zeros((8, 13, 3), np.uint8))
    with pytest.raises(InputError, match="no folder of masks"):
        masks(tmp_path / "none", 5)


def test_images_of_one_name_are_not_given_one_mask(tmp_path) -> None:
    """A mask found by the last part of a name belongs to one image, or nobody knows to which."""
    Image.fromarray(np.zeros((8, 12), np.uint8)).save(tmp_path / "x.png")
    annotator = masks(tmp_path, 2)
    annotator.check_names(["a/x.jpg", "b/y.jpg"])
    with pytest.raises(
        InputError, match=r"a/x\.jpg and b/x\.jpg would both take the mask .*x\.png"
    ):
        annotator.check_names(["a/x.jpg", "b/x.jpg"])
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (12, 8)).save(tmp_path / "images" / name / "x.png")
    with pytest.raises(InputError, match="would both take"):
        run(open_source(str(tmp_path / "images")), annotator, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((8, 12), np.uint8)).save(tmp_path / name / "x.png")
    annotator.check_names(["a/x.jpg", "b/x.jpg"])


def test_images_of_one_name_are_not_given_one_list_of_boxes(tmp_path) -> None:
    file = write_coco(tmp_path / "coco.json", [(10, [0, 0, 6, 4], {})])
    annotator = boxes(file, ["cat", "dog"])
    annotator.check_names(["a/a.jpg", "b/other.jpg", "c/other.jpg"])
    with pytest.raises(
        InputError, match=r"a/a\.jpg and b/a\.jpg would both take the boxes of a\.jpg"
    ):
        annotator.check_names(["a/a.jpg", "b/a.jpg"])


def test_an_empty_mask_says_nothing(tmp_path) -> None:
    write_mask(tmp_path, np.full((8, 12), 255))
    annotator = masks(tmp_path, 5, grid=(2, 2))
    (label,) = annotator.annotate([annotator.prepare("cat/a.jpg", PIXELS)])
    torch.testing.assert_close(dense(label), torch.full((5, 2, 2), 0.2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_turn_with_their_image(tmp_path, orientation) -> None:
    stored = np.zeros((8, 12), np.uint8)
    stored[:4, :6] = 2
    write_mask(tmp_path, stored)
    annotator = masks(tmp_path, 3, grid=(2, 2))
    shown = turned(stored, orientation)
    pixels = np.zeros((*shown.shape, 3), np.uint8)
    (label,) = annotator.annotate([annotator.prepare("cat/a.jpg", pixels, orientation)])
    expected = shown.reshape(2, shown.shape[0] // 2, 2, -1).max((1, 3))
    np.testing.assert_array_equal(label.classes[0].numpy(), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_their_image(tmp_path, orientation) -> None:
    file = write_coco(tmp_path / "coco.json", [(10, [0, 0, 6, 4], {})])  # of an image of 8 x 12
    annotator = boxes(file, ["cat", "dog"], grid=(2, 2))
    stored = np.zeros((8, 12), np.uint8)
    stored[:4, :6] = 1
    shown = turned(stored, orientation)
    pixels = np.zeros((*shown.shape, 3), np.uint8)
    (label,) = annotator.annotate([annotator.prepare("a.jpg", pixels, orientation)])
    expected = shown.reshape(2, shown.shape[0] // 2, 2, -1).max((1, 3))
    np.testing.assert_array_equal(dense(label)[1].round().numpy(), expected)


def test_boxes_drawn_on_the_turned_image_stay(tmp_path) -> None:
    file = write_coco(tmp_path / "coco.json", [(10, [0, 0, 6, 4], {})])  # of 12 columns, 8 rows
    annotator = boxes(file, ["cat", "dog"], grid=(2, 2))
    pixels = np.zeros((8, 12, 3), np.uint8)  # turned from 12 rows, 8 columns
    (label,) = annotator.annotate([annotator.prepare("a.jpg", pixels, 6)])
    assert dense(label)[1].round().tolist() == [[1, 0], [0, 0]]


def test_masks_of_0_and_255_are_asked_about(tmp_path) -> None:
    values = np.zeros((8, 12), np.uint8)
    values[2:] = 255
    write_mask(tmp_path, values)
    (note,) = masks(tmp_path, 2).notes
    assert "name 1 of 2 classes; they also hold the value 255" in note
    assert masks(tmp_path, 1).notes == ()
    assert masks(tmp_path, 256, ignored_values=()).notes == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": [{"id": 7, "file_name": "b.jpg", "height": 1, "width": 1}]},
            "image 7 is listed",
        ),
        (
            {"images": [{"id": 9, "file_name": "a.jpg", "height": 1, "width": 1}]},
            "'a.jpg' is listed",
        ),
        ({"categories": [{"id": 10, "name": "cat"}]}, "category 10 is listed twice"),
        ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1]}]}, "category 3,"),
        ({"annotations": [{"image_id": 99, "category_id": 10, "bbox": [0, 0, 1, 1]}]}, "image 99,"),
    ],
)
def test_boxes_that_belong_to_nothing_or_to_two_are_refused(tmp_path, change, message) -> None:
    file = write_coco(tmp_path / "coco.json", [])
    content = json.loads(file.read_text())
    for key, more in change.items():
        content[key] += more
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        boxes(file, ["cat", "dog"])


def write_coco(path, annotations, categories=("dog", "cat")):
    content = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "height": 8, "width": 12},
            {"id": 8, "file_name": "empty.jpg", "height": 8, "width": 12},
        ],
        "categories": [{"id": 10 + i, "name": name} for i, name in enumerate(categories)],
        "annotations": [
            {"image_id": 7, "category_id": c, "bbox": box, **more} for c, box, more in annotations
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_boxes_become_area_shares(tmp_path) -> None:
    file = write_coco(
        tmp_path / "coco.json",
        [
            (10, [0, 0, 4, 4], {}),
            (10, [0, 0, 2, 2], {}),  # inside the first: nothing more
            (11, [2, 4, 4, 4], {}),
            (10, [8, 0, 4, 4], {}),
            (11, [8, 0, 4, 4], {}),  # shares the cell
            (11, [0, 0, 12, 8], {"iscrowd": 1}),
        ],
    )
    annotator = boxes(file, ["cat", "dog"], grid=(2, 3))
    (label,) = annotator.annotate([annotator.prepare("train/a.jpg", PIXELS)])
    dog = dense(label)[1]
    torch.testing.assert_close(dog, torch.tensor([[1.0, 0.5, 0.5], [0.25, 0.25, 0.5]]))
    (empty,) = annotator.annotate([annotator.prepare("empty.jpg", PIXELS)])
    torch.testing.assert_close(dense(empty), torch.full((2, 2, 3), 0.5))


def test_annotation_files_that_do_not_fit_are_refused(tmp_path) -> None:
    file = write_coco(tmp_path / "coco.json", [])
    with pytest.raises(InputError, match=r"category 'dog' is none .* \(did you mean 'dogs'"):
        boxes(file, ["cat", "dogs"])
    with pytest.raises(InputError, match=r"does not list b\.jpg"):
        boxes(file, ["cat", "dog"]).prepare("b.jpg", PIXELS)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match="not a COCO annotation file"):
        boxes(tmp_path / "bad.json", ["cat"])
