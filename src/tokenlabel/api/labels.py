"""Label stores and the images they belong to: import and health."""

from __future__ import annotations

from pathlib import Path

from tokenlabel.data.decode import decode_image, image_size
from tokenlabel.data.matching import orientation_of
from tokenlabel.data.open import announce, open_images
from tokenlabel.data.source import require_labels, source_fingerprint
from tokenlabel.labels import LabelStore
from tokenlabel.labels.codec import Codec
from tokenlabel.labels.health import Health, check_health
from tokenlabel.labels.released import ExtentRule, Imported, import_released

__all__ = ["import_labels", "labels_health"]


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


def labels_health(
    *, labels: str, data: str, split: str | None = None, sample: int = 1000
) -> Health:
    """How well a store's labels fit the labeled images at `data`, by a sample of them."""
    store = LabelStore(labels)
    opened = open_images(data, split, "train", orientation=orientation_of(store.manifest))
    source = require_labels(opened, data)
    announce(source, data)
    place = {key: index for index, key in enumerate(source.keys)}
    return check_health(
        store,
        dict(zip(source.keys, source.labels, strict=True)),
        source.class_names,
        lambda key: decode_image(source.read(place[key]), key, source.rules),
        sample=sample,
    )
