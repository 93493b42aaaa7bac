"""`tl.pack`: photographs as small images in indexed tars."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tokenlabel.choices import Packing
from tokenlabel.errors import InputError

if TYPE_CHECKING:
    from tokenlabel.data.pack import Packed

__all__ = ["pack"]


def pack(
    *,
    data: str,
    output: str | Path,
    split: str | None = None,
    short_side: int = 256,
    form: Packing = "jpeg",
    quality: int = 90,
    shard_size: int = 5000,
) -> Packed:
    """Write the images of `data` (its training part, or `split`) to tars in the folder `output`.

    Images larger than `short_side` pixels at their shorter side are made so small; keys, classes and
    parts stay, and so do labels that were made of the originals, since their places are fractions of
    the image. `quality` is JPEG's, 1 to 95; `form` "raw" keeps every pixel. Ranks share the work, and an
    interrupted run is continued by the same call. Raises InputError.
    """
    from tokenlabel.data.open import announce, open_images
    from tokenlabel.data.pack import pack_images

    if short_side < 1 or shard_size < 1 or not 1 <= quality <= 95:
        raise InputError("short_side and shard_size must be at least 1, and quality 1 to 95")
    source = open_images(data, split, "train")
    announce(source, data)
    return pack_images(
        source,
        Path(output),
        short_side=short_side,
        form=form,
        quality=quality,
        shard_size=shard_size,
    )
