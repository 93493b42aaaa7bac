"""Object boxes as labels: a COCO annotation file."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import torch

from tokenlabel.annotators.areas import map_of_areas
from tokenlabel.annotators.protocol import Pixels
from tokenlabel.data.orientation import UPRIGHT, turned_box, turned_size
from tokenlabel.errors import InputError, nearest
from tokenlabel.geometry import Box, View, coverage
from tokenlabel.labels import LabelMap
from tokenlabel.text import read_json

__all__ = ["BoxAnnotator"]

T = TypeVar("T")


class ImageBoxes(NamedTuple):
    """The objects of one image."""

    size: tuple[int, int]  # (height, width) of the image that the boxes were drawn on
    boxes: list[tuple[int, Box]]  # class and place of each


class BoxAnnotator:
    """Labels cells with the share of their area that boxes of each class cover.

    Where boxes of several classes cover a cell, they share it. Images are found by the annotation
    file's `file_name`: the whole key, or its last part. Crowd regions are left out.
    """

    def __init__(
        self,
        file: Path,
        class_names: Sequence[str],
        *,
        grid: tuple[int, int] = (32, 32),
        top_k: int = 5,
    ) -> None:
        self.num_classes = len(class_names)
        self.grid, self.top_k = grid, top_k
        try:
            content = read_json(file, kind=dict)
            self._of_image = _boxes_by_name(content, class_names)
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from error
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file} is no COCO annotation file: {error!r}") from error

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": "boxes", "grid": self.grid, "top_k": self.top_k}

    def batch_size(self) -> int:
        return 32

    def prepare(self, key: str, pixels: Pixels, orientation: int = UPRIGHT) -> ImageBoxes:
        found = self._of_image.get(key, self._of_image.get(PurePosixPath(key).name))
        if found is None:
            raise InputError(f"the annotation file does not list {key}")
        shown = (pixels.shape[0], pixels.shape[1])
        if found.size == shown != turned_size(shown, orientation):
            return found  # drawn on the turned image
        return ImageBoxes(shown, [(c, turned_box(box, orientation)) for c, box in found.boxes])

    def annotate(self, batch: Sequence[ImageBoxes]) -> list[LabelMap]:
        return [self._map(image) for image in batch]

    def _map(self, image: ImageBoxes) -> LabelMap:
        classes = sorted({c for c, _ in image.boxes}) or [0]
        areas = torch.zeros(len(classes), *self.grid)
        for c, box in image.boxes:
            plane = areas[classes.index(c)]
            torch.maximum(plane, coverage(View.identity(), self.grid, box), out=plane)
        areas = areas / areas.sum(0).clamp(min=1)
        return map_of_areas(areas, classes, self.num_classes, self.top_k)


def _boxes_by_name(content: dict[str, Any], class_names: Sequence[str]) -> dict[str, ImageBoxes]:
    places = {name: i for i, name in enumerate(class_names)}
    class_of: dict[int, int] = {}
    for category in content["categories"]:
        name = category["name"]
        if name not in places:
            raise InputError(
                f"category {name!r} is none of the data set's classes{nearest(name, places)}"
            )
        class_of[_unused(category["id"], class_of, "category")] = places[name]
    images: dict[int, ImageBoxes] = {}
    by_name: dict[str, ImageBoxes] = {}
    for image in content["images"]:
        found = ImageBoxes((image["height"], image["width"]), [])
        images[_unused(image["id"], images, "image")] = found
        by_name[_unused(image["file_name"], by_name, "image file")] = found
    for number, annotation in enumerate(content["annotations"]):
        left, top, width, height = annotation["bbox"]
        if annotation.get("iscrowd") or width <= 0 or height <= 0:
            continue
        of_image, category = annotation["image_id"], annotation["category_id"]
        for kind, name, known in (("image", of_image, images), ("category", category, class_of)):
            if name not in known:
                raise InputError(f"box number {number} is of {kind} {name}, which is not listed")
        boxes = images[of_image]
        box = Box.from_pixels(left, top, width, height, boxes.size)
        boxes.boxes.append((class_of[category], box))
    return by_name


def _unused(name: T, used: Container[T], what: str) -> T:
    if name in used:
        raise InputError(f"{what} {name!r} is listed twice: which boxes are its own is unknown")
    return name
