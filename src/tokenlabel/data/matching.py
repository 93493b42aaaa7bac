"""Do these labels belong to these images? Asked before the first step."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from tokenlabel.data.rules import DecodeRules
from tokenlabel.data.source import UNLABELED, ImageSource, Subset
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore
from tokenlabel.labels.manifest import Manifest

__all__ = ["check_orientation", "in_classes_of", "labeled_samples", "left_out_keys"]


def labeled_samples(source: ImageSource, *stores: LabelStore) -> NDArray[np.int64]:
    """Indices of the images to train on: all, but for those that an annotator had to leave out.

    Raises InputError where classes or orientations differ, or an image has no label.
    """
    samples = np.arange(len(source))
    for labels in stores:
        samples = np.intersect1d(samples, _labeled(source, labels))
    return samples


def left_out_keys(*stores: LabelStore) -> set[str]:
    """The images that an annotator had to leave out."""
    return {record.key for labels in stores for record in labels.manifest.left_out}


def _labeled(source: ImageSource, labels: LabelStore) -> NDArray[np.int64]:
    _check_classes(source, labels.manifest)
    check_orientation(source.rules, labels.manifest)
    left_out = left_out_keys(labels)
    wanted = [i for i, key in enumerate(source.keys) if key not in left_out]
    missing = [source.keys[i] for i in wanted if source.keys[i] not in labels]
    if missing:
        found = (
            f"none of the {len(source)} images has a label"
            if len(missing) == len(source)
            else f"{len(missing)} of {len(source)} images have no label"
        )
        raise InputError(
            f"{found} in this store of {len(labels)}: first {', '.join(missing[:3])}; annotate these"
            " images, or name the labels' own images"
        )
    return np.array(wanted, dtype=np.int64)


def in_classes_of(
    held_out: ImageSource, training: ImageSource, training_name: str, held_out_name: str
) -> ImageSource:
    """The images of `held_out` with the class numbers of `training`.

    Classes without an image in `held_out` are allowed, and its account names them. Raises InputError
    where it has classes that `training` has not.
    """
    if held_out.class_names == training.class_names:
        return held_out
    place = {name: i for i, name in enumerate(training.class_names)}
    unknown = [name for name in held_out.class_names if name not in place]
    if unknown:
        raise InputError(
            f"{len(unknown)} of the {len(held_out.class_names)} classes of {held_out_name} are not"
            f" among the {len(place)} of {training_name}: {', '.join(unknown[:4])}"
        )
    missing = [name for name in training.class_names if name not in held_out.class_names]
    note = f"no image of {len(missing)} classes of {training_name}: {', '.join(missing[:4])}"
    moved = [place[name] for name in held_out.class_names]
    subset = Subset.of(held_out, range(len(held_out)), note if missing else "")
    labels = np.array([*moved, UNLABELED])[np.asarray(subset.labels)].tolist()  # -1 is the last
    several = subset.several and [tuple(moved[i] for i in classes) for classes in subset.several]
    return dataclasses.replace(
        subset, labels=labels, several=several, class_names=training.class_names
    )


def check_orientation(rules: DecodeRules, manifest: Manifest) -> None:
    """Raises InputError where images are turned otherwise than those that the labels were made of."""
    made = manifest.orientation
    if made != rules.orientation:
        raise InputError(
            f"the labels were made with EXIF orientation {made!r}, the images are read with"
            f" {rules.orientation!r}: places would not match; set the orientation to {made!r}"
            " (data.orientation in training), or annotate anew"
        )


def _check_classes(source: ImageSource, manifest: Manifest) -> None:
    if manifest.words or not source.class_names:
        return  # tokens name words, or what the annotator knows; no image's class is among them
    images, labels = source.class_names, manifest.class_names
    if manifest.num_classes != len(images):
        raise InputError(
            f"the labels are of {manifest.num_classes} classes, the images of {len(images)}:"
            " annotate with a classifier of the images' own classes"
        )
    # names in another language (synset ids and English) say nothing; the same names elsewhere do
    place = {name: i for i, name in enumerate(images)}
    for i, name in enumerate(labels or ()):
        if place.get(name, i) != i:
            raise InputError(
                f"class {name!r} is number {i} of the labels but {place[name]} of the images:"
                " the two must have one class order"
            )
