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
    """Write small copies of images to tars with an index, which are read and decoded much faster.

    tokenlabel pack --data photos --output packed

    Keys and classes stay the same, so labels made of the originals are labels of the copies. Parts of
    one data set may go into one folder. Stopped or killed, the same command goes on; ranks of torchrun
    share the work.

    Args:
        data: images: a folder of class folders, a tar, WebDataset shards, hfds/owner/name.
        output: folder of the tars; `--data OUTPUT` opens it in every verb.
        split: part of the data set, where it has parts; the training part by default.
        short_side: larger images are made so small, in pixels of their shorter side; smaller ones are
            kept as they are.
        form: jpeg, or raw: every pixel as it is after resizing, in about eight times the space.
        quality: of JPEG, 1 to 95.
        shard_size: images in a tar.
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
