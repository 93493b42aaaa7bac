"""The files of a label store, wherever it lies."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tokenlabel.errors import InputError
from tokenlabel.files import cache_folder, inside, replacing, sha256_of

__all__ = ["StoreFiles"]


class StoreFiles:
    """Local paths of a store's files: the files themselves, or copies of remote ones.

    The manifest is fetched each time, so that a new version is noticed; files named by a checksum
    are fetched once.
    """

    def __init__(self, location: str | Path, copies: Path | None = None) -> None:
        """`copies` is where remote files go, by default a folder of the user's cache."""
        self._location = str(location)
        self._folder = Path(location)
        self._remote = "://" in self._location
        if self._remote:
            name = hashlib.sha256(self._location.rstrip("/").encode()).hexdigest()[:16]
            self._folder = copies or cache_folder() / "labels" / name

    def path_of(self, name: str, *, sha256: str | None = None) -> Path:
        """A file's local path. Raises InputError if a fetched file does not have the checksum."""
        path = inside(self._folder, name, links=True)
        if self._remote and not (sha256 and path.exists() and sha256_of(path) == sha256):
            self._fetch(name, path)
            if sha256 and sha256_of(path) != sha256:
                path.unlink()
                raise InputError(f"{self._location}/{name} is damaged: its checksum does not match")
        return path

    def _fetch(self, name: str, path: Path) -> None:
        import fsspec

        url = f"{self._location.rstrip('/')}/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(path) as aside:
                files, remote_path = fsspec.url_to_fs(url)
                files.get_file(remote_path, str(aside))
        except InputError:
            raise
        except Exception as error:  # each kind of storage raises its own
            raise InputError(f"cannot read {url}: {' '.join(str(error).split())}") from error
