"""Object boxes as labels: a COCO annotation file."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from pydantic.dataclasses import dataclass

from tokenlabel.annotators.spec import Cells, File
from tokenlabel.errors import InputError, nearest
from tokenlabel.options import STRICT, Count
from tokenlabel.text import read_json

if TYPE_CHECKING:
    import torch

    from tokenlabel.annotators.protocol import Pixels
    from tokenlabel.geometry import Box
    from tokenlabel.labels import LabelMap

__all__ = ["BoxAnnotator", "BoxesSpec"]


T = TypeVar("T")


class ImageBoxes(NamedTuple):
    """The objects of one image."""

    size: tuple[int, int]  # (height, width) of the image that the boxes were drawn on
    boxes: list[tuple[int, Box]]  # class and place of each


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BoxesSpec:
    """Label images from object boxes: the classes of a cell are weighted by area."""

    kind: ClassVar[str] = "boxes"

    file: File
    """A COCO annotation file."""
    grid: Cells = (32, 32)
    """Rows and columns of cells."""
    top_k: Count = 5
    """Classes kept per cell."""

    def build(
        self,
        class_names: Sequence[str],
        device: torch.device | None = None,  # noqa: ARG002 (networks use it)
    ) -> BoxAnnotator:
        return BoxAnnotator(self, class_names)


class BoxAnnotator:
    """Labels cells with the share of their area that boxes of each class cover.

    Where boxes of several classes cover a cell, they share it. Images are found by the annotation
    file's `file_name`: the whole key, or its last part. Crowd regions are left out.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, spec: BoxesSpec, class_names: Sequence[str]) -> None:
        self.spec = spec
        self.class_names = tuple(class_names)
        self.num_classes = len(class_names)
        if not spec.file.is_file():
            raise InputError(f"no annotation file at {spec.file}")
        content = read_json(spec.file, kind=dict)
        try:
            self._of_image = _boxes_by_name(content, class_names)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{spec.file} is not a COCO annotation file: {error!r}") from error

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": "boxes", "grid": list(self.spec.grid), "top_k": self.spec.top_k}

    def batch_size(self) -> int:
        return 32

    def check_names(self, keys: Sequence[str]) -> None:
        from tokenlabel.annotators.areas import require_one_each

        require_one_each(keys, self._listed_as, "the boxes of")

    def prepare(self, key: str, pixels: Pixels, orientation: int = 1) -> ImageBoxes:
        from tokenlabel.data.orientation import turned_box, turned_size

        name = self._listed_as(key)
        if name is None:
            raise InputError(f"the annotation file does not list {key}")
        found = self._of_image[name]
        shown = (pixels.shape[0], pixels.shape[1])
        if found.size == shown != turned_size(shown, orientation):
            return found  # drawn on the turned image
        return ImageBoxes(shown, [(c, turned_box(box, orientation)) for c, box in found.boxes])

    def _listed_as(self, key: str) -> str | None:
        """The name of an image in the annotation file: its key, or the key's last part."""
        names = (key, PurePosixPath(key).name)
        return next((name for name in names if name in self._of_image), None)

    def annotate(self, batch: Sequence[ImageBoxes]) -> list[LabelMap]:
        return [self._map(image) for image in batch]

    def _map(self, image: ImageBoxes) -> LabelMap:
        import torch

        from tokenlabel.annotators.areas import map_of_areas
        from tokenlabel.geometry import View, coverage

        classes = sorted({c for c, _ in image.boxes}) or [0]
        areas = torch.zeros(len(classes), *self.spec.grid)
        for c, box in image.boxes:
            plane = areas[classes.index(c)]
            torch.maximum(plane, coverage(View.identity(), self.spec.grid, box), out=plane)
        areas = areas / areas.sum(0).clamp(min=1)
        return map_of_areas(areas, classes, self.num_classes, self.spec.top_k)


def _boxes_by_name(content: dict[str, Any], class_names: Sequence[str]) -> dict[str, ImageBoxes]:
    from tokenlabel.geometry import Box

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
