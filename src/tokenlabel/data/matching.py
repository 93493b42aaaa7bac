"""Do these labels belong to these images? Asked before the first step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore
from tokenlabel.labels.manifest import Manifest

__all__ = ["labelled_samples"]


def labelled_samples(source: ImageSource, labels: LabelStore) -> NDArray[np.int64]:
    """Indices of the images to train on: all, but for those that the annotator had to leave out.

    Raises InputError where classes differ or an image has no label.
    """
    _check_classes(source, labels.manifest)
    left_out = {record.key for record in labels.manifest.left_out}
    wanted = [i for i, key in enumerate(source.keys) if key not in left_out]
    missing = [source.keys[i] for i in wanted if source.keys[i] not in labels]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(source)} images have no label among {len(labels)}: first"
            f" {', '.join(missing[:3])}; annotate these images, or name the labels' own images"
        )
    return np.array(wanted, dtype=np.int64)


def _check_classes(source: ImageSource, manifest: Manifest) -> None:
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
