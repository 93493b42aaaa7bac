"""`ImageSource`: images with classes under stable keys, wherever they are kept."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from tokenlabel.choices import Orientation
from tokenlabel.columns import Texts
from tokenlabel.data.decode import CUT_OFF
from tokenlabel.data.rules import AS_STORED, DecodeRules
from tokenlabel.data.survey import Survey, spread_indices, survey
from tokenlabel.errors import InputError

__all__ = [
    "UNLABELED",
    "Found",
    "ImageSource",
    "Listing",
    "Subset",
    "classes_of",
    "has_classes",
    "read_by",
    "require_a_class",
    "require_classes",
    "require_labels",
    "source_fingerprint",
    "without_classes",
]

UNLABELED = -1  # in `labels`: the image has no class
_SHOWN = 6
_NAME_CLASSES = "give one folder for each class, or a .csv list with a column 'label'"


@dataclass(frozen=True)
class Found:
    """The account of opened data: what is there, and what was left out and why."""

    images: int
    classes: int
    unlabeled: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)  # reason -> count
    part: str | None = None  # the part of the data set that was chosen
    notes: tuple[str, ...] = ()
    # of the images that were looked into (`looked_into` of them)
    looked_into: int = 0
    orientation: int = 0  # images that carry an EXIF orientation other than upright
    modes: Mapping[str, int] = field(default_factory=dict)  # Pillow's mode -> count
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # mode -> least, most

    def __post_init__(self) -> None:
        # counted in the order of a walk, which differs between disks; ranks compare the account
        for name in ("left_out", "modes", "ranges"):
            object.__setattr__(self, name, dict(sorted(getattr(self, name).items())))

    def line(self) -> str:
        """One line to print: images, classes, and all that was left out by reason."""
        said = [f"{self.images:,} images in {self.classes:,} classes"]
        if self.classes == 0:
            said = [f"{self.images:,} images without classes"]
        if self.part:
            said[0] += f" (part {self.part!r})"
        if self.unlabeled and self.classes:
            said.append(f"{self.unlabeled:,} without a class")
        if self.left_out:
            counts = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
            shown = ", ".join(f"{count:,} {reason}" for reason, count in counts[:_SHOWN])
            rest = sum(count for _, count in counts[_SHOWN:])
            said.append(f"left out: {shown}" + (f", {rest:,} others" if rest else ""))
        return "; ".join([*said, *self.notes[:_SHOWN]])

    def as_dict(self) -> dict[str, Any]:
        """For JSON; equal on all ranks that opened equal data."""
        return {
            "images": self.images,
            "classes": self.classes,
            "unlabeled": self.unlabeled,
            "left_out": dict(self.left_out),
            "part": self.part,
            "notes": list(self.notes),
            "looked_into": self.looked_into,
            "orientation": self.orientation,
            "modes": dict(self.modes),
            "ranges": {mode: list(pair) for mode, pair in self.ranges.items()},
        }


class ImageSource(Protocol):
    """Images that may be read in any order, by any process; the order of the keys never changes."""

    @property
    def keys(self) -> Sequence[str]:
        """A unique name for each image: "cat/0001.jpg". It finds the image's label record."""
        ...

    @property
    def labels(self) -> Sequence[int]:
        """The class of each image, an index of `class_names`; UNLABELED (-1) where it has none."""
        ...

    @property
    def several(self) -> Sequence[tuple[int, ...]] | None:
        """Of data whose images may have several classes: all of each image, `labels` being the first.
        None: an image has one class at most."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def found(self) -> Found:
        """What was found when the data was opened."""
        ...

    @property
    def rules(self) -> DecodeRules:
        """How its images become pixels."""
        ...

    @property
    def digest(self) -> str:
        """sha256 (hex) that two processes compare: keys, labels, classes and the account."""
        ...

    def __len__(self) -> int: ...

    def version(self) -> str:
        """Other words after the files of the images have changed: sizes and times, no contents."""
        ...

    def read(self, index: int) -> bytes:
        """The encoded image file. Raises InputError where it cannot be read, and StorageError
        (a kind of it) where the storage does not answer after several attempts."""
        ...

    def read_many(self, indices: Sequence[int]) -> Iterator[bytes]:
        """The same of several, in their order, each when it is asked for or before."""
        ...


@dataclass(frozen=True)
class Listing:
    """What all sources know of their images, apart from how to read one."""

    keys: Sequence[str]
    labels: Sequence[int]
    class_names: tuple[str, ...]
    found: Found
    rules: DecodeRules = field(default=AS_STORED, kw_only=True)
    several: Sequence[tuple[int, ...]] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        # as arrays: workers share them, where each would make its own of a list's objects
        object.__setattr__(self, "keys", Texts.of(self.keys))
        labels = np.asarray(self.labels, np.int32)
        object.__setattr__(self, "labels", array("i", labels.tobytes()))

    def __len__(self) -> int:
        return len(self.keys)

    def looked_into(self, orientation: Orientation) -> Self:
        """The same source with the `rules` that some of its images tell, and with them in its account.

        These are spread evenly over the data; headers are read, and pixels of more than 8 bits.
        """
        seen = self.surveyed()
        rules = seen.rules(orientation)
        notes = [
            f"{mode} images of values {low:g} to {high:g}"
            for mode, (low, high) in sorted(seen.ranges.items())
        ]
        notes += [
            f"{count} of {seen.images} images looked into are {mode}: convert them to .npy arrays"
            for mode, count in sorted(seen.modes.items())
            if mode.endswith(CUT_OFF)
        ]
        if seen.oriented:
            done = "applied" if orientation == "apply" else "ignored"
            notes.append(
                f"{seen.oriented} of {seen.images} images looked into carry an EXIF orientation, which"
                f" is {done}"
            )
        found = replace(
            self.found,
            looked_into=seen.images,
            orientation=seen.oriented,
            modes=dict(seen.modes),
            ranges=dict(seen.ranges),
            notes=(*self.found.notes, *notes),
        )
        return replace(self, found=found, rules=rules)

    def surveyed(self) -> Survey:
        """What some of the images, spread evenly over the data, are like."""
        return survey((self.keys[i], partial(self.head, i)) for i in spread_indices(len(self)))

    def head(self, index: int) -> bytes:
        """As `read`; of a JPEG perhaps no more than its header."""
        return self.read(index)

    def version(self) -> str:
        """See `ImageSource.version`."""
        raise NotImplementedError

    def read(self, index: int) -> bytes:
        """See `ImageSource.read`."""
        raise NotImplementedError

    def read_many(self, indices: Sequence[int]) -> Iterator[bytes]:
        """See `ImageSource.read_many`."""
        return map(self.read, indices)

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of keys, labels, classes and the account, for processes to compare."""
        account = json.dumps(self.found.as_dict(), sort_keys=True)
        return hashlib.sha256(f"{source_fingerprint(self)}{account}".encode()).hexdigest()


@dataclass(frozen=True)
class Subset(Listing):
    """Some images of a source, with all of its classes."""

    source: ImageSource
    indices: NDArray[np.int64]

    @classmethod
    def of(
        cls, source: ImageSource, indices: Sequence[int] | NDArray[np.int64], note: str = ""
    ) -> Subset:
        """The images at `indices`; the account counts them, and says `note`."""
        numbers = np.asarray(indices, np.int64)
        labels = np.asarray(source.labels, np.int32)[numbers]
        found = replace(
            source.found,
            images=len(numbers),
            unlabeled=int((labels == UNLABELED).sum()),
            notes=(*source.found.notes, *filter(None, [note])),
        )
        keys = Texts.of(source.keys).take(numbers)
        return cls(
            keys, labels.tolist(), source.class_names, found, source, numbers, rules=source.rules,
            several=source.several and [source.several[i] for i in numbers.tolist()],
        )  # fmt: skip

    def version(self) -> str:
        return self.source.version()

    def read(self, index: int) -> bytes:
        return self.source.read(int(self.indices[index]))

    def read_many(self, indices: Sequence[int]) -> Iterator[bytes]:
        return self.source.read_many([int(self.indices[index]) for index in indices])


def classes_of(source: ImageSource, index: int) -> tuple[int, ...]:
    """All classes of an image: none, one, or several."""
    if source.several is not None:
        return tuple(source.several[index])
    label = int(source.labels[index])
    return () if label == UNLABELED else (label,)


def read_by(source: ImageSource, rules: DecodeRules) -> ImageSource:
    """The same images, of which the rules that a model was trained by make pixels."""
    assert isinstance(source, Listing)
    return replace(source, rules=rules.filled(source.rules))


def require_labels(source: ImageSource, where: str) -> ImageSource:
    """The images of `source` that have a class; those without are left out, and counted.

    Raises InputError naming `where` if none has one.
    """
    labels = np.asarray(source.labels)
    kept = np.flatnonzero(labels != UNLABELED)
    if len(kept) == len(labels):
        return source
    if not len(kept):
        raise InputError(f"none of the {len(source)} images of {where} has a class")
    subset = Subset.of(source, kept)
    missing = len(source) - len(kept)
    left_out = Counter(source.found.left_out) + Counter({"without a class": missing})
    return replace(subset, found=replace(subset.found, left_out=dict(left_out)))


def require_classes(source: ImageSource, where: str) -> ImageSource:
    """As `require_labels`, for images to train on: raises InputError where all have one class, too."""
    source = require_labels(source, where)
    if len(source.class_names) > 1 or source.several is not None:
        return source
    require_a_class(source, where)
    raise InputError(
        f"the images of {where} are all of one class, {source.class_names[0]!r}: {_NAME_CLASSES}"
    )


def require_a_class(source: ImageSource, where: str, otherwise: str = "") -> None:
    """Raises InputError naming `where` if no image has a class; its line ends with `otherwise`."""
    if not has_classes(source):
        raise InputError(f"the images of {where} have no classes: {_NAME_CLASSES}{otherwise}")


def has_classes(source: ImageSource) -> bool:
    """Whether any image has a class; a flat folder's one class without a name is none."""
    named = source.class_names != ("",)
    return named and any(int(label) != UNLABELED for label in source.labels)


def without_classes(source: ImageSource) -> ImageSource:
    """The same images, none of which has a class."""
    assert isinstance(source, Listing)
    count = len(source)
    found = replace(source.found, classes=0, unlabeled=count)
    return replace(source, labels=[UNLABELED] * count, several=None, class_names=(), found=found)


def source_fingerprint(source: ImageSource | Listing) -> str:
    """sha256 (hex) of keys, labels and class names: equal for equal data, whatever its form."""
    digest = hashlib.sha256()
    for name in source.class_names:
        digest.update(name.encode() + b"\0")
    for key, label in zip(source.keys, source.labels, strict=True):
        digest.update(f"{key}\0{int(label)}\0".encode())
    if source.several is not None:
        digest.update(repr([tuple(classes) for classes in source.several]).encode())
    return digest.hexdigest()
