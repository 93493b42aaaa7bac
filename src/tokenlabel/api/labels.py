"""Label stores and the images they belong to: import and health."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from tokenlabel.data.decode import decode_picture, image_size
from tokenlabel.data.open import announce, open_images
from tokenlabel.data.source import (
    ImageSource,
    has_classes,
    require_labels,
    source_fingerprint,
    without_classes,
)
from tokenlabel.labels import LabelStore
from tokenlabel.labels.codec import Codec
from tokenlabel.labels.health import Health, Pixels, check_health
from tokenlabel.labels.released import ExtentRule, Imported, import_released
from tokenlabel.labels.word_health import WordHealth, check_words
from tokenlabel.pictures.words import word_sheet

__all__ = ["import_labels", "labels_health", "show_words"]


def import_labels(
    *,
    tree: Path,
    data: str,
    output: Path,
    split: str | None = None,
    extent: ExtentRule = "center-crop",
    codec: Codec = "exact",
    overwrite: bool = False,
) -> Imported:
    """Bring a tree of released labels into the store `output`; see `import_released`."""
    source = open_images(data, split, "train")
    announce(source, data)
    return import_released(
        tree,
        output,
        source.keys,
        lambda index: image_size(source.read(index), source.keys[index], source.rules),
        num_classes=len(source.class_names),
        class_names=source.class_names,
        dataset={"fingerprint": source_fingerprint(source), "samples": len(source)},
        extent=extent,
        codec=codec,
        overwrite=overwrite,
    )


def show_words(
    *, labels: str, data: str, split: str | None = None, words: Sequence[int] = ()
) -> Image.Image:
    """What visual words of a store are like on the images at `data`; see `word_sheet`."""
    store = LabelStore(labels)
    source = open_images(data, split, "train", orientation=store.manifest.orientation)
    return word_sheet(store, source.keys, _pixels_of(source), words)


def labels_health(
    *, labels: str, data: str, split: str | None = None, sample: int = 1000
) -> Health | WordHealth:
    """How well a store's labels fit the images at `data`, by a sample of them.

    Labels of classes need images with classes; visual words tell more of images that have some.
    """
    store = LabelStore(labels)
    source = open_images(data, split, "train", orientation=store.manifest.orientation)
    if not store.manifest.words:
        source = require_labels(source, data)
    elif not has_classes(source):
        source = without_classes(source)
    announce(source, data)
    truth, pixels = dict(zip(source.keys, source.labels, strict=True)), _pixels_of(source)
    if store.manifest.words:
        return check_words(store, source.keys, truth, pixels, sample=sample)
    return check_health(store, truth, source.class_names, pixels, sample=sample)


def _pixels_of(source: ImageSource) -> Callable[[str], Pixels]:
    """The image of a key, as people see it."""
    place = {key: index for index, key in enumerate(source.keys)}
    return lambda key: decode_picture(source.read(place[key]), key, source.rules)
