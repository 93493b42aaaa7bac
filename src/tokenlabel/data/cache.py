"""Decoded images, kept in memory or in a file, for data sets that are small enough.

All images are decoded once, before the first batch; loader workers map one file and share its pages.

Layout (little-endian): the pixels of all images one after another, then for each image its height,
width and the CRC-32 of its pixels, u32 [N, 3], then the number of images u64 and the magic bytes.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any
from weakref import WeakValueDictionary

import numpy as np
import psutil

from tokenlabel.choices import Cache
from tokenlabel.data.decode import decode_image, image_size
from tokenlabel.data.rules import DecodeRules
from tokenlabel.data.source import ImageSource, source_fingerprint
from tokenlabel.data.survey import spread_indices
from tokenlabel.errors import InputError
from tokenlabel.files import Locked, cache_folder, claim_file, locked, replacing, short_of_space
from tokenlabel.geometry.render import Pixels
from tokenlabel.progress import console, first_process, progress_bar
from tokenlabel.torchrun import decoding_threads, local_world

__all__ = ["DecodedImages", "decoded_images", "may_be_reduced"]

MAGIC = b"TLPIXEL1"
_END = struct.Struct("<Q8s")
_LITTLE = 2e9  # bytes that may be taken unasked
_AT_ONCE = 256  # images decoded ahead of the file
_LOOK_AGAIN = 1.0  # s


class DecodedImages:
    """The pixels of every image of a source, in a file that this object owns."""

    def __init__(self, descriptor: int, where: str, rules: DecodeRules) -> None:
        """Raises InputError where the file is not whole."""
        self._file, self._where, self._rules = descriptor, where, rules
        size = os.fstat(descriptor).st_size
        fault = InputError(f"{where} is damaged: delete it, it is made anew")
        if size < _END.size:
            raise fault
        self._data = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
        count, magic = _END.unpack_from(self._data, size - _END.size)
        table = size - _END.size - 12 * count
        if magic != MAGIC or table < 0:
            raise fault
        self._table = np.frombuffer(self._data, "<u4", 3 * count, table).reshape(count, 3)
        areas = self._table[:, :2].astype(np.int64).prod(1)
        self._starts = np.concatenate(
            ([0], np.cumsum(rules.channels * rules.dtype.itemsize * areas))
        )
        if self._starts[-1] != table:
            raise fault

    def __len__(self) -> int:
        return len(self._table)

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of an image."""
        height, width, _ = self._table[index].tolist()
        return height, width

    def pixels(self, index: int) -> Pixels:
        """A copy of an image's pixels [H, W, C]. Raises InputError where they are damaged."""
        start, end = self._starts[index : index + 2].tolist()
        data = self._data[start:end]
        if zlib.crc32(data) != self._table[index, 2]:
            raise InputError(f"{self._where} is damaged: delete it, it is made anew")
        return np.frombuffer(data, self._rules.dtype).reshape(*self.size(index), -1).copy()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __reduce__(self) -> tuple[Callable[..., DecodedImages], tuple[Any, str, DecodeRules]]:
        """For workers that are spawned, not forked: they get the same file."""
        return _received, (DupFd(self._file), self._where, self._rules)


def _received(descriptor: Any, where: str, rules: DecodeRules) -> DecodedImages:
    return DecodedImages(descriptor.detach(), where, rules)


def may_be_reduced(size: tuple[int, int], at_least: tuple[int, int]) -> bool:
    """Whether `decode_image` may give an image of `size` = (height, width) at a reduced scale."""
    # by half at least, rounded up
    return min(at_least) > 0 and all(
        (side + 1) // 2 >= least for side, least in zip(size, at_least, strict=True)
    )


def decoded_images(source: ImageSource, cache: Cache, *, fast: bool) -> DecodedImages | None:
    """All images of `source` as `decode_image(..., fast=fast)` gives them, or None without a cache.

    "ram" and "device" keep them in the memory of this process and its workers, "disk" in a file of
    the user's cache that every process on the machine shares and that later runs find again. "auto" is
    "ram" where they take little memory, else "none". What it takes is said. Raises InputError where
    memory or disk do not suffice, and for images that cannot be decoded.
    """
    if cache == "none" or len(source) == 0:
        return None
    content = f"{MAGIC!r} {source_fingerprint(source)} {source.version()} {source.rules} {fast}"
    name = hashlib.sha256(content.encode()).hexdigest()[:32]
    if cache == "disk":
        return _on_disk(name, source, fast)
    if (kept := _IN_MEMORY.get(name)) is not None:
        return kept
    ranks = local_world()  # each keeps its own
    needed, free = _estimate(source), psutil.virtual_memory().available
    if cache == "auto" and ranks * needed > min(_LITTLE, free / 4):
        return None
    if ranks * needed > free:
        raise InputError(
            f"{len(source):,} decoded images take {_gigabytes(ranks * needed)} of memory,"
            f" {_gigabytes(free)} are free: choose data.cache=disk or none"
        )
    with _memory_file() as file:
        _write(file, source, fast, f"{_gigabytes(needed)} of memory")
        made = DecodedImages(os.dup(file.fileno()), "the memory of decoded images", source.rules)
    _IN_MEMORY[name] = made
    return made


_IN_MEMORY: WeakValueDictionary[str, DecodedImages] = WeakValueDictionary()
"""Those in use, by their content: a loader that takes the place of another needs no second copy."""


def _on_disk(name: str, source: ImageSource, fast: bool) -> DecodedImages:
    path = claim_file(cache_folder() / "images" / f"{name}.pixels", overwrite=True)
    waits = False
    while not path.exists():
        try:
            with locked(path, "the decoded images"):
                if not path.exists():
                    _write_file(path, source, fast)
        except Locked:
            if not waits and first_process():
                console.print(f"another process is writing {path}: waiting", soft_wrap=True)
            waits = True
            time.sleep(_LOOK_AGAIN)
    return DecodedImages(os.open(path, os.O_RDONLY), str(path), source.rules)


def _write_file(path: Path, source: ImageSource, fast: bool) -> None:
    needed = _estimate(source)
    if (fault := short_of_space(path, needed)) is not None:
        raise InputError(fault)
    with replacing(path) as aside, aside.open("wb") as file:
        _write(file, source, fast, f"{_gigabytes(needed)} of disk: {path}")


def _write(file: IO[bytes], source: ImageSource, fast: bool, where: str) -> None:
    if first_process():
        console.print(f"{len(source):,} decoded images take about {where}", soft_wrap=True)

    def decoded(index: int) -> Pixels:
        return _decoded(source, index, fast)

    table = np.empty((len(source), 3), "<u4")
    with (
        ThreadPoolExecutor(decoding_threads()) as pool,
        progress_bar(visible=first_process()) as bar,
    ):
        task = bar.add_task("decode", total=len(source), note="")
        for first in range(0, len(source), _AT_ONCE):
            indices = range(first, min(first + _AT_ONCE, len(source)))
            for index, pixels in zip(indices, pool.map(decoded, indices), strict=True):
                data = pixels.tobytes()
                table[index] = *pixels.shape[:2], zlib.crc32(data)
                file.write(data)
                bar.advance(task)
    file.write(table.tobytes())
    file.write(_END.pack(len(source), MAGIC))
    file.flush()


def _decoded(source: ImageSource, index: int, fast: bool) -> Pixels:
    return decode_image(source.read(index), source.keys[index], source.rules, fast=fast)


def _estimate(source: ImageSource) -> int:
    """Bytes of all decoded images, from the headers of some of them."""
    some, rules = spread_indices(len(source)), source.rules
    areas = (math.prod(image_size(source.read(i), source.keys[i], rules)) for i in some)
    return rules.channels * rules.dtype.itemsize * sum(areas) * len(source) // len(some)


def _memory_file() -> IO[bytes]:
    """A file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("tokenlabel"), "wb")
    return tempfile.TemporaryFile()


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
