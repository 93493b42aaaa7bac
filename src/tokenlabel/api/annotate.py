"""`tl.annotate`: label every region of every image once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenlabel.choices import Codec, Orientation
from tokenlabel.errors import InputError

if TYPE_CHECKING:
    from tokenlabel.annotators.spec import AnnotatorSpec
    from tokenlabel.labels.manifest import Manifest

__all__ = ["annotate"]


def annotate(
    *,
    data: str,
    output: str | Path,
    annotator: str | Mapping[str, Any] | AnnotatorSpec,
    split: str | None = None,
    orientation: Orientation | None = None,
    channels: Sequence[int] = (),
    codec: Codec = "compact",
    batch_size: int | None = None,
    shard_size: int | None = None,
    notice: Callable[[str], object] | None = None,
) -> Manifest:
    """Label the images of `data` (its training part, or `split`) into a label store at `output`.

    `annotator` is a spec, such as `ClassifierSpec(model="resnet50")`, the same as a mapping with
    `kind`, or a classifier's name alone. `channels` are those of the images, by number, that it is
    shown; `orientation` says whether EXIF orientations are applied. By default both are as in the
    training of a segmentation network, and all channels and "ignore" for other annotators. An
    interrupted run is continued by the same call. Returns the store's manifest: `labeled` images, those
    `left_out` and why; it is not `complete` while other processes still write. `notice` is called with
    each line worth reading before the work begins.
    Raises InputError.
    """
    from tokenlabel.annotators.kinds import build_annotator, read_spec
    from tokenlabel.annotators.run import run
    from tokenlabel.data.open import open_images
    from tokenlabel.models import weights_or

    if any(size is not None and size < 1 for size in (batch_size, shard_size)):
        raise InputError("batch_size and shard_size must be at least 1")
    spec = read_spec(annotator)
    source = open_images(data, split, "train", orientation=orientation or "ignore")
    with weights_or("give --checkpoint FILE, or teach an annotator (`tokenlabel teach`)"):
        built = build_annotator(spec, class_names=source.class_names)
    trained = getattr(built, "rules", source.rules).orientation
    if orientation is None and trained != source.rules.orientation:
        source = open_images(data, split, "train", orientation=trained)
    for line in (f"{data}: {source.found.line()}", *built.notes):
        if notice is not None:
            notice(line)
    return run(
        source,
        built,
        output,
        channels=channels or None,
        batch_size=batch_size,
        shard_size=shard_size,
        codec=codec,
    )
