"""Object boxes as labels: a COCO annotation file."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from tokenlabel.annotators.areas import map_of_areas
from tokenlabel.annotators.protocol import Pixels
from tokenlabel.errors import InputError, nearest
from tokenlabel.geometry import Box, View, coverage
from tokenlabel.labels import LabelMap

__all__ = ["BoxAnnotator"]

ImageBoxes = list[tuple[int, Box]]  # class and place of each object


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
            content = json.loads(file.read_text())
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

    def prepare(self, key: str, pixels: Pixels) -> ImageBoxes:  # noqa: ARG002 (the protocol's)
        found = self._of_image.get(key, self._of_image.get(PurePosixPath(key).name))
        if found is None:
            raise InputError(f"the annotation file does not list {key}")
        return found

    def annotate(self, batch: Sequence[ImageBoxes]) -> list[LabelMap]:
        return [self._map(boxes) for boxes in batch]

    def _map(self, boxes: ImageBoxes) -> LabelMap:
        classes = sorted({c for c, _ in boxes}) or [0]
        areas = torch.zeros(len(classes), *self.grid)
        for c, box in boxes:
            plane = areas[classes.index(c)]
            torch.maximum(plane, coverage(View.identity(), self.grid, box), out=plane)
        areas = areas / areas.sum(0).clamp(min=1)
        return map_of_areas(areas, classes, self.num_classes, self.top_k)


def _boxes_by_name(content: dict[str, Any], class_names: Sequence[str]) -> dict[str, ImageBoxes]:
    places = {name: i for i, name in enumerate(class_names)}
    class_of = {}
    for category in content["categories"]:
        name = category["name"]
        if name not in places:
            raise InputError(
                f"category {name!r} is none of the data set's classes{nearest(name, places)}"
            )
        class_of[category["id"]] = places[name]
    boxes: dict[int, ImageBoxes] = defaultdict(list)
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for annotation in content["annotations"]:
        left, top, width, height = annotation["bbox"]
        if annotation.get("iscrowd") or width <= 0 or height <= 0:
            continue
        size = sizes[annotation["image_id"]]
        box = Box.from_pixels(left, top, width, height, size)
        boxes[annotation["image_id"]].append((class_of[annotation["category_id"]], box))
    return {image["file_name"]: boxes[image["id"]] for image in content["images"]}
