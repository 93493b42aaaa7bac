"""`Annotator`: anything that turns images into label maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from tokenlabel.choices import Arithmetic
from tokenlabel.data.orientation import UPRIGHT
from tokenlabel.geometry.render import Pixels
from tokenlabel.labels import LabelMap

__all__ = ["Annotator", "FindsByName", "Network", "Pixels"]

Item = TypeVar("Item")


class Annotator(Protocol[Item]):
    """Labels a batch of images in two steps, so that the first may run in other threads.

    Both steps must give the same result for the same input: a resumed run has to end with the same
    bytes as an undisturbed one. Images are RGB, unless an annotator has an attribute `channels`: the
    number that it takes. An attribute `rules` holds the `DecodeRules` of the images that it was trained
    on: images are read by these.
    """

    num_classes: int

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes of its maps, where they are known."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that a user should read before the work."""
        ...

    @property
    def description(self) -> dict[str, Any]:
        """What the store's manifest says of it: kind, weights, preprocessing, extent rule; JSON."""
        ...

    def batch_size(self) -> int:
        """How many images to annotate at a time, on this machine."""
        ...

    def prepare(self, key: str, pixels: Pixels, orientation: int = UPRIGHT) -> Item:
        """What `annotate` needs of one image. Raises InputError where it cannot be labeled.

        `orientation` is the EXIF orientation that was applied to the pixels, for annotators that know
        places in the stored image; see `tokenlabel.data.orientation`.
        """
        ...

    def annotate(self, batch: Sequence[Item]) -> list[LabelMap]:
        """One label map for each prepared image, of the part of the image that its extent says."""
        ...


@runtime_checkable
class Network(Protocol):
    """An annotator that computes, in an arithmetic that may be left open until the work begins."""

    def settle_arithmetic(self, wanted: Arithmetic, images: int) -> None:
        """Where it is left open: take the `wanted` one, or with "auto" the quicker for so many images.
        `description` says under "dtype" which it is; where it says nothing, it is float32.
        """
        ...


@runtime_checkable
class FindsByName(Protocol):
    """An annotator that looks up what is known of an image by the image's name."""

    def check_names(self, keys: Sequence[str]) -> None:
        """Before the work, with the names of all images: say what is not known of them.

        Raises InputError where two of them would get the same labels.
        """
        ...
