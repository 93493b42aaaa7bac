"""Everything is written beside its place, synced and renamed.

A disk that is full or cannot be written ends as one `InputError` with the path, whatever the library
in between raises.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import io
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tokenlabel.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "disk_errors",
    "permit",
    "replacing",
    "replacing_folder",
    "scratch",
    "sha256_of",
    "short_of_space",
    "sync",
    "write_atomically",
    "write_tensors",
    "write_torch",
]

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ACCESS = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR}
_PROBE = 1 << 16  # bytes that a disk must still take to count as not full
_ERRNO = re.compile(r"\(os error (\d+)\)")  # as libraries in Rust end their errors of files
ASIDE = re.compile(r"\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.tmp$")


@contextmanager
def replacing(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place as one step when the block ends.

    Readers see the old content or the new, also after a crash. Nothing is left where the block
    fails. The file gets the permissions that the umask gives. Raises InputError where the disk is
    full, read-only or out of reach, also where a library in the block raised something else for it.
    `synced` False leaves the time of writing to the system: for thousands of small files that can be
    made again.
    """
    with _aside(path, synced=synced) as aside:
        yield aside
        permit(aside)
        if synced:
            sync(aside)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, which gets its name as one step; `path` must not exist yet."""
    with _aside(path, synced=True) as aside:
        aside.mkdir(parents=True)
        yield aside
        for file in sorted(aside.rglob("*")):
            permit(file)
            sync(file)
        sync(aside)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace a small file as one step; text is written as UTF-8."""
    with replacing(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file, for use inside `replacing` or `replacing_folder`.

    The library's own `save_file` hides a full disk: it removes what it wrote and raises no OSError.
    """
    from safetensors.torch import save

    path.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def write_torch(path: Path, value: object) -> None:
    """`torch.save` for use inside `replacing`: the same bytes whatever the file is called.

    Given a path, torch writes the file's name into the file, and ends the process where a disk fills.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    path.write_bytes(buffer.getbuffer())


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the OSErrors of a full or read-only disk into one InputError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE | NO_ACCESS:
            raise InputError(explained(error, path, 0)) from error
        raise


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file's bytes, whatever its size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Return once a file, or a folder's list of files, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):  # folders elsewhere
            raise
    finally:
        os.close(descriptor)


def permit(path: Path) -> None:
    """Give a file or folder the permissions that the umask leaves; some libraries write 0600."""
    path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())


def short_of_space(path: Path, needed: int) -> str | None:
    """One line where `needed` bytes will not fit on the disk of `path`, else None."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed <= free:
        return None
    return f"no space for {path}: it needs about {_size(needed)}, its disk has {_size(free)} left"


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder inside `folder` for the block; what a killed process left of one goes with the next."""
    place = folder / f".scratch.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    with disk_errors(folder):
        remove_leftovers(folder)
        place.mkdir()
    try:
        yield place
    finally:
        _remove(place)


@contextmanager
def _aside(path: Path, *, synced: bool) -> Iterator[Path]:
    """A name beside `path` that is renamed to it; removed where the block fails."""
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    aside = path.with_name(f".{path.name[:120]}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        remove_leftovers(path.parent)
        yield aside
        aside.replace(path)
        if synced:
            sync(path.parent)
    except BaseException as error:
        fault = None if isinstance(error, InputError) else _disk_fault(error, aside)
        size = _bytes_in(aside)
        _remove(aside)
        if fault is not None:
            raise InputError(explained(fault, path, size)) from error
        raise


def _disk_fault(error: BaseException, aside: Path) -> OSError | None:
    """The disk's part in an error: the error itself, what it says, or what a small write now runs into.

    Libraries report a full disk in exceptions of their own.
    """
    if isinstance(error, OSError):
        place = Path(str(error.filename or aside))
        ours = place.is_relative_to(aside) or aside.is_relative_to(place)
        return error if error.errno in NO_SPACE or (ours and error.errno in NO_ACCESS) else None
    if not isinstance(error, Exception):
        return None
    said = _ERRNO.search(str(error))
    if said is not None and (number := int(said[1])) in NO_SPACE:
        return OSError(number, os.strerror(number))
    target = aside / "probe" if aside.is_dir() else aside
    try:
        with target.open("ab") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as found:
        return found if found.errno in NO_SPACE | NO_ACCESS else None
    return None


def explained(fault: OSError, path: Path, size: int) -> str:
    if fault.errno in NO_SPACE:
        free = f" (more than {_size(size)})" if size else ""
        return f"no space left for {path}{free}: free some and run the same command again"
    return f"cannot write {path} ({fault.strerror}): choose another place or change its permissions"


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


def _bytes_in(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@functools.cache
def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this machine were writing in a folder, once a process."""
    with suppress(OSError):
        for entry in list(os.scandir(folder or ".")):
            found = ASIDE.search(entry.name)
            if found and found["host"] == _host() and not alive(int(found["pid"])):
                _remove(Path(entry.path))


@functools.cache
def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_umask()  # asked once, before there are threads: asking sets it for a moment


@functools.cache
def _host() -> str:
    """Eight digits for this machine, or for this container's list of processes."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
