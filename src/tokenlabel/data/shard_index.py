"""Where the files of a tar lie, found once from its headers alone, and kept.

An index is a file of the user's cache, made by whichever process comes first and read by all others, or
a sidecar beside the tar, `<tar>.index`, as `tokenlabel pack` writes it. As JSON packed by zstd it holds
paths, offsets and sizes of the files, the contents of small notes, and what it belongs to: the tar's
version, its size, and the checksum of its last header.
"""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zstandard
from numpy.typing import NDArray

from tokenlabel.columns import Texts
from tokenlabel.data.names import check_key
from tokenlabel.data.ranges import Ranges, file_version
from tokenlabel.data.shards import NOTES
from tokenlabel.data.tar import members_of
from tokenlabel.errors import InputError
from tokenlabel.files import Locked, cache_folder, claim_file, locked, write_atomically
from tokenlabel.progress import first_process, progress_bar
from tokenlabel.text import read_json
from tokenlabel.torchrun import rank_and_world

__all__ = [
    "SIDECAR",
    "ShardIndex",
    "index_file",
    "made_once",
    "scan_shard",
    "shard_indexes",
    "write_sidecar",
]

SIDECAR = ".index"
_FORMAT = 1
_AT_ONCE = 32  # tars
_LARGEST = 1 << 28  # bytes of an unpacked index; a file of a tar takes about 60
_HEADER = 512
_LOOK_AGAIN = 0.2  # s

T = TypeVar("T")


@dataclass(frozen=True)
class ShardIndex:
    """The regular files of one tar, in their order."""

    paths: Texts
    offsets: NDArray[np.uint64]
    sizes: NDArray[np.uint64]
    notes: dict[str, bytes] = field(default_factory=dict)  # path -> content
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> count


def shard_indexes(archives: Sequence[str]) -> list[ShardIndex]:
    """The indexes of tars (paths or fsspec URLs); those that are missing are made, many at once.

    Ranks that start together each begin elsewhere, so that they share the work. Raises InputError for
    what is not a tar, and where the storage does not answer.
    """
    rank, world = rank_and_world()
    first = rank * len(archives) // world
    with (
        ThreadPoolExecutor(_AT_ONCE) as pool,
        progress_bar("tars", visible=first_process() and len(archives) > 1) as bar,
    ):
        task = bar.add_task("index", total=len(archives), note="")
        order = [*range(first, len(archives)), *range(first)]
        waiting = {number: pool.submit(_index_of, archives[number]) for number in order}
        found = {}
        try:
            for number in order:
                found[number] = waiting[number].result()
                bar.advance(task)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [found[number] for number in range(len(archives))]


def scan_shard(plain: str, name: str) -> ShardIndex:
    """The index of the tar at `plain`, called `name` in messages, from its headers."""
    left_out: Counter[str] = Counter()
    paths, offsets, sizes, notes = [], [], [], {}
    for (path, offset, size), note in members_of(plain, name, NOTES, left_out):
        paths.append(path)
        offsets.append(offset)
        sizes.append(size)
        if note is not None:
            notes[path] = note
    return ShardIndex(
        Texts.of(paths),
        np.array(offsets, np.uint64),
        np.array(sizes, np.uint64),
        notes,
        dict(left_out),
    )


def write_sidecar(archive: Path) -> None:
    """Keep the index of a local tar beside it, where it goes with its copies."""
    path = archive.with_name(archive.name + SIDECAR)
    write_atomically(path, _packed(scan_shard(str(archive), str(archive)), str(archive)))


def index_file(name: str, ending: str) -> Path:
    """Where what is known of some tars is kept; its folder is there."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return claim_file(cache_folder() / "shards" / (digest + ending), overwrite=True)


def _index_of(archive: str) -> ShardIndex:
    version = file_version(archive)
    kept = index_file(archive if "://" in archive else str(Path(archive).absolute()), ".index")

    def read() -> ShardIndex | None:
        return _unpacked(kept.read_bytes(), version=version)

    def write() -> ShardIndex:
        found = _sidecar(archive) or scan_shard(archive, archive)
        write_atomically(kept, _packed(found, archive, version))
        return found

    return made_once(kept, read, write)


def made_once(path: Path, read: Callable[[], T | None], write: Callable[[], T]) -> T:
    """What a file holds, or what the first of several processes writes into it while others wait.

    `read` returns None for a file that does not fit, which is written anew.
    """
    while True:
        if path.is_file() and (found := read()) is not None:
            return found
        try:
            with locked(path, "the index"):
                if path.is_file() and (found := read()) is not None:
                    return found
                return write()
        except Locked:
            time.sleep(_LOOK_AGAIN)


def _sidecar(archive: str) -> ShardIndex | None:
    """What stands beside a tar, where it fits it."""
    try:
        content = Ranges(archive + SIDECAR).whole(_LARGEST)
    except InputError:
        return None
    with Ranges(archive) as tar:
        return _unpacked(content, size=tar.size, last=lambda offset: _last_header(tar, offset))


def _last_header(tar: Ranges, offset: int) -> int:
    return zlib.crc32(tar.range(offset - _HEADER, offset))


def _packed(index: ShardIndex, archive: str, version: str = "") -> bytes:
    with Ranges(archive) as tar:
        last = _last_header(tar, int(index.offsets[-1])) if len(index.offsets) else 0
        content = {
            "format": _FORMAT,
            "version": version,
            "size": tar.size,
            "last_header": last,
            "paths": list(index.paths),
            "offsets": index.offsets.tolist(),
            "sizes": index.sizes.tolist(),
            "notes": {path: note.decode("latin-1") for path, note in index.notes.items()},
            "left_out": index.left_out,
        }
    packer = zstandard.ZstdCompressor(write_checksum=True)
    return packer.compress(json.dumps(content, separators=(",", ":")).encode())


def _unpacked(
    content: bytes, *, version: str = "", size: int = -1, last: Any = None
) -> ShardIndex | None:
    """The index that a file holds; None where it is damaged or of another tar."""
    try:
        if zstandard.frame_content_size(content) > _LARGEST:
            return None
        found = read_json(zstandard.ZstdDecompressor().decompress(content), kind=dict)
        if found["format"] != _FORMAT or (version and found["version"] != version):
            return None
        offsets = np.array(found["offsets"], np.uint64)
        sizes = np.array(found["sizes"], np.uint64)
        paths, total = [str(path) for path in found["paths"]], int(found["size"])
        for path in paths:
            check_key(path, "the index")
        if not len(paths) == len(offsets) == len(sizes) or (offsets + sizes > total).any():
            return None
        if last is not None and (
            total != size or (len(paths) and last(int(offsets[-1])) != found["last_header"])
        ):
            return None
        notes = {str(path): note.encode("latin-1") for path, note in found["notes"].items()}
        left_out = {str(reason): int(count) for reason, count in found["left_out"].items()}
    except (
        zstandard.ZstdError,
        InputError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
    ):
        return None
    return ShardIndex(Texts.of(paths), offsets, sizes, notes, left_out)
