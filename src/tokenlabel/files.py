"""The only writer: files that are whole or not there, locks, and names that stay in their folder.

Everything is written beside its place, synced and renamed. A disk that is full or cannot be written
ends as one `InputError` with the path, whatever the library in between raises.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from tokenlabel.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Locked",
    "claim_file",
    "claim_folder",
    "inside",
    "locked",
    "permit",
    "replacing",
    "replacing_folder",
    "short_of_space",
    "sync",
    "write_atomically",
    "write_tensors",
]

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ACCESS = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR}
_PROBE = 1 << 16  # bytes that a disk must still take to count as not full
_WAIT_FOR_CHILDREN = 15.0  # s: a killed process's loader workers notice within 5 s
_ASIDE = re.compile(r"\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.tmp$")


class Locked(InputError):
    """Another process holds the lock."""


# -- writing --------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place as one step when the block ends.

    Readers see the old content or the new, also after a crash. Nothing is left where the block
    fails. The file gets the permissions that the umask gives. Raises InputError where the disk is
    full, read-only or out of reach, also where a library in the block raised something else for it.
    """
    with _aside(path) as aside:
        yield aside
        permit(aside)
        sync(aside)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, which gets its name as one step; `path` must not exist yet."""
    with _aside(path) as aside:
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
    return f"{path} needs about {_size(needed)}, but its disk has {_size(free)} left"


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A name beside `path` that is renamed to it; removed where the block fails."""
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    aside = path.with_name(f".{path.name[:120]}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        _remove_leftovers(path.parent)
        yield aside
        aside.replace(path)
        sync(path.parent)
    except BaseException as error:
        fault = None if isinstance(error, InputError) else _disk_fault(error, aside)
        size = _bytes_in(aside)
        _remove(aside)
        if fault is not None:
            raise InputError(_explained(fault, path, size)) from error
        raise


def _disk_fault(error: BaseException, aside: Path) -> OSError | None:
    """The disk's part in an error: the error itself, or what a small write now runs into.

    Libraries report a full disk in exceptions of their own.
    """
    if isinstance(error, OSError):
        place = Path(str(error.filename or aside))
        ours = place.is_relative_to(aside) or aside.is_relative_to(place)
        return error if error.errno in _NO_SPACE or (ours and error.errno in _NO_ACCESS) else None
    if not isinstance(error, Exception):
        return None
    target = aside / "probe" if aside.is_dir() else aside
    try:
        with target.open("ab") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as found:
        return found if found.errno in _NO_SPACE | _NO_ACCESS else None
    return None


def _explained(fault: OSError, path: Path, size: int) -> str:
    if fault.errno in _NO_SPACE:
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
def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this machine were writing in a folder, once a process."""
    with suppress(OSError):
        for entry in list(os.scandir(folder or ".")):
            found = _ASIDE.search(entry.name)
            if found and found["host"] == _host() and not _alive(int(found["pid"])):
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
    import hashlib

    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


# -- names that come out of data ------------------------------------------------------------------


def inside(folder: Path, name: str, *, links: bool = False) -> Path:
    """The path `folder / name` of a name read from data, an archive or another machine.

    Raises InputError for names that are empty, absolute, hold "..", a drive or a NUL, or lead out of
    the folder through a symbolic link. `links` accepts a last part that is a link, for reading hub
    caches, which consist of links.
    """
    parts = PurePosixPath(name).parts + PureWindowsPath(name).parts
    bad = (
        not name.strip()
        or "\0" in name
        or ".." in parts
        or name in (".", "./")
        or PurePosixPath(name).is_absolute()
        or PureWindowsPath(name).anchor != ""
    )
    path = folder / name
    if not bad:
        place = path.parent.resolve() / path.name if links else path.resolve()
        bad = not place.is_relative_to(folder.resolve())
    if bad:
        raise InputError(f"{name!r} is no name of a file inside {folder}: it is refused")
    return path


def claim_folder(
    path: Path, *, overwrite: bool = False, ours: Callable[[Path], bool] | None = None
) -> Path:
    """Make a folder for output, or accept one that is empty or `ours`.

    Raises InputError where it holds something else; `overwrite` accepts that too, and files of equal
    names are replaced.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: name a folder")
    if path.is_dir() and not overwrite:
        foreign = any(not _is_aside(entry.name) for entry in os.scandir(path))
        if foreign and not (ours is not None and ours(path)):
            raise InputError(
                f"{path} is not empty and holds something else:"
                " choose another folder, or say --overwrite"
            )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(_explained(error, path, 0)) from error
    _remove_leftovers(path)
    return path


def claim_file(path: Path, *, overwrite: bool = False) -> Path:
    """A file for output whose folder exists from now on.

    Raises InputError where the file exists, unless told to `overwrite` it.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already: choose another name, or say --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(_explained(error, path, 0)) from error
    return path


def _is_aside(name: str) -> bool:
    return name == _LOCK or _ASIDE.search(name) is not None


# -- locks ----------------------------------------------------------------------------------------

_LOCK = ".lock"


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold `path` alone, a folder or a file, until the block ends or this process dies.

    `what` names it in messages ("the run", "the label store"). The lock is `.lock` in a folder,
    `<name>.lock` beside a file, and is gone when it is released. Raises `Locked`, an InputError that
    says who holds it and since when; a lock whose holder died is taken over. Raises InputError on
    file systems without locks.
    """
    import filelock

    file = path / _LOCK if path.is_dir() else path.with_name(path.name + _LOCK)
    lock = filelock.FileLock(file, is_singleton=False)
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            host, pid, since = _holder(file)
            if host != socket.gethostname() or pid is None or _alive(pid):
                raise Locked(
                    f"{what} {path} is in use by process {pid or '?'} on {host or 'a machine'}"
                    f" since {since or 'some time'}: wait for it, or choose another folder"
                ) from None
            # the holder was killed, and its child processes, who share the lock, are about to notice
            try:
                lock.acquire(timeout=_WAIT_FOR_CHILDREN)
            except filelock.Timeout:
                raise Locked(
                    f"{what} {path} is held by child processes of process {pid}, which was killed:"
                    " end them first"
                ) from None
    except OSError as error:
        raise InputError(
            f"cannot lock {path} ({error.strerror}): choose a place on a file system that has locks"
        ) from error
    try:
        with suppress(OSError):  # the names are for messages only; the lock itself is the system's
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write_text(f"{socket.gethostname()}\n{os.getpid()}\n{since}\n")
        yield
    finally:
        with suppress(OSError):  # gone before it is released, so that no other holder loses his
            file.unlink()
        lock.release()


def _holder(file: Path) -> tuple[str | None, int | None, str | None]:
    """(host, process, since when) of whoever holds a lock, as far as the file says."""
    try:
        host, pid, since = file.read_text(errors="replace").splitlines()[:3]
        return host, int(pid), since
    except (OSError, ValueError):
        return None, None, None
