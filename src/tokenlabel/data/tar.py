"""Where the files inside a tar lie, with limits on what foreign archives may cost."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

import fsspec

from tokenlabel.data.names import check_key, is_gzipped
from tokenlabel.data.ranges import Ranges
from tokenlabel.errors import InputError

__all__ = ["Member", "members_of", "unpacked"]

_DEEPEST = 3  # tars within tars
_LARGEST_NOTE = 1 << 20  # bytes; the class of one image needs far less
# images hardly shrink in gzip: what grows more than this beyond a gigabyte is no archive of images
_MOST_GROWTH = 100
_ALWAYS_ALLOWED = 1 << 30
_KEPT_FREE = 1 << 28  # bytes of the disk that unpacking leaves free
_CHUNK = 1 << 20


class Member(NamedTuple):
    """One file inside a tar: its path, and where its bytes are."""

    path: str
    offset: int
    size: int


def members_of(
    plain: str, name: str, notes: tuple[str, ...], left_out: Counter[str]
) -> Iterator[tuple[Member, bytes | None]]:
    """The regular files of the tar at `plain`, called `name` in messages, in their order.

    With each comes its content if it is small and ends in one of `notes`. Files of a tar within
    stand below its name. Raises InputError for what is not a tar, and for names that lead out of it.
    """
    try:
        with Ranges(plain) as file:
            for path, offset, size in _walk(file, name, left_out):
                content = None
                if path.endswith(notes) and size <= _LARGEST_NOTE:
                    file.seek(offset)
                    content = file.read(size)
                yield Member(path, offset, size), content
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"cannot read {name} as a tar file: {error}") from error


def _walk(
    file: IO[bytes] | Ranges, name: str, left_out: Counter[str], depth: int = 1
) -> Iterator[tuple[str, int, int]]:
    """Path, offset and size of each file in a tar."""
    if depth > _DEEPEST:
        raise InputError(f"{name} holds tars within tars, more than {_DEEPEST} deep: unpack it")
    with tarfile.open(fileobj=cast(IO[bytes], file), mode="r:") as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would keep them all
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                left_out["not regular files"] += 1
                continue
            check_key(info.name, name)
            path = str(PurePosixPath(info.name))
            if path.endswith(".tar"):
                inner = tar.extractfile(info)
                assert inner is not None
                for inner_path, offset, size in _walk(inner, f"{name}/{path}", left_out, depth + 1):
                    yield f"{path[:-4]}/{inner_path}", info.offset_data + offset, size
            else:
                yield path, info.offset_data, info.size


def unpacked(archive: str, temporary: list[str]) -> str:
    """A plain tar of a gzipped one, which allows no reading out of order; others as they are.

    Adds the file that it makes to `temporary`, for the caller to remove. Raises InputError for a
    damaged archive, and for one that grows beyond reason or beyond the disk.
    """
    if not is_gzipped(archive):
        return archive
    with tempfile.NamedTemporaryFile(suffix=".tar", delete=False) as plain:
        temporary.append(plain.name)
        try:
            with fsspec.open(archive, "rb") as packed, gzip.open(packed) as content:
                written = 0
                while chunk := content.read(_CHUNK):
                    written += len(chunk)
                    _check_growth(archive, written, packed.tell(), Path(plain.name).parent)
                    plain.write(chunk)
        except (OSError, EOFError) as error:
            raise InputError(f"cannot read {archive} as a tar file: {error}") from error
    return plain.name


def _check_growth(archive: str, written: int, read: int, folder: Path) -> None:
    if written > _ALWAYS_ALLOWED and written > _MOST_GROWTH * read:
        raise InputError(
            f"{archive} grows to more than {_MOST_GROWTH} times its size: this is not an archive of"
            " images; unpack it yourself if it is"
        )
    if shutil.disk_usage(folder).free < _KEPT_FREE:
        raise InputError(
            f"{folder} has no space to unpack {archive}: set TMPDIR to a folder of a larger disk"
        )
