"""`tokenlabel pack`: photographs as small images in indexed tars."""

from __future__ import annotations

from pathlib import Path

from tokenlabel.choices import Packing
from tokenlabel.cli.said import say_next

__all__ = ["pack"]


def pack(
    *,
    data: str,
    output: Path,
    split: str | None = None,
    short_side: int = 256,
    form: Packing = "jpeg",
    quality: int = 90,
    shard_size: int = 5000,
) -> None:
    """Write small copies of images to indexed tar files, which load and decode much faster.

    tokenlabel pack --data photos --output packed

    Keys and classes stay the same, so labels of the originals are labels of the copies. Several splits
    of a data set can go into one folder. To resume, run the same command again. With torchrun, the
    processes share the work.

    Args:
        data: images: a folder with one subfolder per class, a tar file, WebDataset shards, or
            hfds/owner/name.
        output: folder for the tar files; every verb opens it with --data.
        split: split to use (default: the training split).
        short_side: larger images are resized to this many pixels on their shorter side; smaller
            ones keep their size.
        form: jpeg, or raw: uncompressed pixels, about eight times as large.
        quality: JPEG quality, 1 to 95.
        shard_size: images per tar file.
    """
    given = {**locals()}
    from tokenlabel.api.pack import pack as run
    from tokenlabel.progress import first_process

    done = run(**given)
    if not first_process():
        return
    size = f"{done.bytes / 1e6:,.1f} MB, {done.bytes / max(done.images, 1) / 1000:.1f} kB an image"
    left_out = f"; left out: {len(done.left_out):,} unreadable" if done.left_out else ""
    print(f"{output}: {done.images:,} images, {size}{left_out}")
    if not done.complete:
        print("other processes are still writing")
        return
    say_next("train", ("--data", output), ("--split", split))
