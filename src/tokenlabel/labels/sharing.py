"""Publishing a label store to, and taking one from, any fsspec location or data-set hub."""

from __future__ import annotations

from pathlib import Path

from tokenlabel.errors import InputError
from tokenlabel.files import claim_folder, inside, scratch, short_of_space, write_atomically
from tokenlabel.labels.index import FILE_NAME as INDEX_FILE
from tokenlabel.labels.manifest import FILE_NAME as MANIFEST_FILE
from tokenlabel.labels.manifest import Manifest
from tokenlabel.labels.remote import StoreFiles
from tokenlabel.labels.store import LabelStore
from tokenlabel.labels.vocabulary import FILE_NAME as VOCABULARY_FILE
from tokenlabel.labels.writer import is_store_folder
from tokenlabel.progress import progress_bar
from tokenlabel.text import markdown

__all__ = ["pull", "push", "store_card"]


def push(folder: Path, destination: str) -> Manifest:
    """Copy a finished store to `hf://datasets/owner/name`, `s3://bucket/path` or the like.

    The manifest goes last, so that a reader never sees a store that is not whole. A card
    (`README.md`) that says what the labels are goes with it.
    """
    import fsspec

    manifest = LabelStore(folder).manifest
    try:
        files, root = fsspec.url_to_fs(destination)
        files.makedirs(root, exist_ok=True)
        with progress_bar("files") as progress:
            words = [VOCABULARY_FILE] if manifest.words else []
            names = [*(shard.file for shard in manifest.shards), *words, INDEX_FILE]
            task = progress.add_task("push", total=len(names), note="")
            for name in progress.track(names, task_id=task):
                files.put_file(str(inside(folder, name, links=True)), f"{root.rstrip('/')}/{name}")
        files.pipe_file(f"{root.rstrip('/')}/README.md", store_card(manifest).encode())
        files.put_file(str(folder / MANIFEST_FILE), f"{root.rstrip('/')}/{MANIFEST_FILE}")
    except Exception as error:  # each kind of storage raises its own
        reason = " ".join(str(error).split())
        raise InputError(f"cannot write to {destination}: {reason}") from error
    return manifest


def pull(location: str, folder: Path, *, overwrite: bool = False) -> Manifest:
    """Copy a remote store to a folder. Files that are there already and whole are kept.

    The manifest comes last, so that a copy that was interrupted is no store yet. Raises InputError
    where the folder holds something else (unless `overwrite` is set) or the disk is too small.
    """
    if "://" not in location:
        raise InputError(f"{location} is not a remote location: copy a folder with your own tools")
    claim_folder(folder, overwrite=overwrite, ours=is_store_folder)
    with scratch(folder) as aside:
        manifest_path = StoreFiles(location, aside).path_of(MANIFEST_FILE)
        manifest = Manifest.read(manifest_path, folder)
        if not manifest.complete:
            raise InputError(f"{location} is unfinished and cannot be pulled")
        missing = (s.bytes for s in manifest.shards if not inside(folder, s.file).exists())
        if (fault := short_of_space(folder, sum(missing))) is not None:
            raise InputError(fault)
        files = StoreFiles(location, folder)
        with progress_bar("files") as progress:
            files.path_of(INDEX_FILE, sha256=manifest.index_sha256)
            if manifest.words:
                files.path_of(VOCABULARY_FILE, sha256=manifest.vocabulary_sha256)
            task = progress.add_task("pull", total=len(manifest.shards), note="")
            for shard in progress.track(manifest.shards, task_id=task):
                files.path_of(shard.file, sha256=shard.sha256)
        write_atomically(folder / MANIFEST_FILE, manifest_path.read_bytes())
    return manifest


def store_card(manifest: Manifest) -> str:
    """The read-me of a published store, with the front matter that data-set hubs read."""
    records = sum(shard.records for shard in manifest.shards)
    size = sum(shard.bytes for shard in manifest.shards)
    rows = "\n".join(
        f"| {markdown(name)} | {markdown(value)} |"
        for name, value in {
            "images": records,
            "left out": len(manifest.left_out),
            "visual words" if manifest.words else "classes": manifest.num_classes,
            "codec": manifest.codec,
            "size": f"{size / 1e6:.1f} MB ({size / max(records, 1):.0f} bytes an image)",
            **{f"annotator: {key}": value for key, value in manifest.annotator.items()},
            **{f"data set: {key}": value for key, value in manifest.dataset.items()},
        }.items()
    )
    return f"""---
tags:
- token-labels
- tokenlabel
---
# Token labels

Per-region soft labels of images, made with tokenlabel: for each image a map of cells, for each cell
its best classes and their probabilities. The images themselves are not included.

| | |
|---|---|
{rows}

```python
import tokenlabel as tl
store = tl.LabelStore("hf://datasets/OWNER/NAME")   # or a local copy: tokenlabel labels pull
label_map = store[store.keys()[0]]
```
"""
