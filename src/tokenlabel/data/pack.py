"""Photographs as small images in indexed tars: decoded faster, read in ranges, with the same keys.

A shard is a stretch of the source in its own order: a tar of images, each with a `.json` note of its
class beside it (WebDataset's form), and its index. Whichever process comes first writes a shard, so that
ranks share the work and a killed run goes on. `<name>.json` beside the shards lists them (`wids`).
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from tokenlabel.choices import Packing
from tokenlabel.data.decode import decode_image, decode_picture, image_size, read_header
from tokenlabel.data.levels import reason_of
from tokenlabel.data.orientation import EXIF_TAG, UPRIGHT
from tokenlabel.data.reading import StorageError
from tokenlabel.data.shard_index import write_sidecar
from tokenlabel.data.source import ImageSource, classes_of, source_fingerprint
from tokenlabel.data.splits import named_like_a_part
from tokenlabel.data.survey import spread_indices
from tokenlabel.data.walk import is_array
from tokenlabel.errors import InputError
from tokenlabel.files import (
    Locked,
    claim_folder,
    locked,
    replacing,
    short_of_space,
    write_atomically,
)
from tokenlabel.geometry import View, render
from tokenlabel.progress import first_process, progress_bar
from tokenlabel.text import read_json
from tokenlabel.torchrun import decoding_threads, rank_and_world

__all__ = ["Packed", "pack_images", "packed_size"]

_LOOKED_INTO = 16  # images that tell how large all will be


@dataclass(frozen=True)
class Packed:
    """Images in shards: a folder that every verb opens."""

    folder: Path
    images: int
    bytes: int
    left_out: dict[str, str]
    """Keys of images that cannot be decoded, with the reason."""
    complete: bool
    """Whether all shards are there; other processes may still be writing."""


class _Form(NamedTuple):
    short_side: int
    form: Packing
    quality: int


def pack_images(
    source: ImageSource,
    folder: Path,
    *,
    short_side: int,
    form: Packing = "jpeg",
    quality: int = 90,
    shard_size: int = 5000,
) -> Packed:
    """Write the images of a source to tars in `folder`.

    Images whose shorter side has more than `short_side` pixels are made so small, with an antialiasing
    filter; others are kept as they are, byte for byte. An EXIF orientation is kept as a tag. Images that
    cannot be decoded are left out. Raises InputError where the folder holds something else.
    """
    part = source.found.part
    name = part if part and named_like_a_part(part) else "images"
    settings = {
        "fingerprint": source_fingerprint(source),
        "short_side": short_side,
        "form": form,
        "quality": quality,
        "shard_size": shard_size,
    }
    claim_folder(folder, ours=_is_packed)
    _begin(folder / f"{name}.pack", settings)
    shards = [folder / f"{name}-{n:05d}.tar" for n in range(math.ceil(len(source) / shard_size))]
    how = _Form(short_side, form, quality)
    _check_notes(source)
    rank, world = rank_and_world()
    if not shards[0].exists():
        _check_space(folder, source, how)
    with (
        ThreadPoolExecutor(decoding_threads()) as pool,
        progress_bar(visible=first_process()) as bar,
    ):
        task = bar.add_task("pack", total=len(source), note="")
        found = 0
        for number in sorted(range(len(shards)), key=lambda number: (number - rank) % world):
            indices = range(number * shard_size, min((number + 1) * shard_size, len(source)))
            try:
                with locked(shards[number], "the shard"):
                    if _is_whole(shards[number]):
                        found += len(indices)
                    else:
                        _write_shard(shards[number], source, indices, how, pool)
            except Locked:
                found += len(indices)  # another process writes it
            bar.update(task, advance=len(indices), found=found)
    return _finished(folder / f"{name}.json", source, shards)


def _begin(path: Path, settings: dict[str, Any]) -> None:
    """Note the settings, or compare them with those that the shards were begun with."""
    if not path.exists():
        write_atomically(path, json.dumps(settings, indent=1))
        return
    before = read_json(path, kind=dict)
    for key, value in settings.items():
        if before.get(key) != value:
            raise InputError(
                f"{path.parent} was started with {key} = {before.get(key)!r}, now it is {value!r}: use"
                " the same settings or another output folder"
            )


def _is_packed(folder: Path) -> bool:
    return any(path.suffix == ".pack" for path in folder.iterdir())


def _is_whole(shard: Path) -> bool:
    """The left-out images of a shard are written last."""
    return shard.exists() and _left_out(shard).exists()


def _left_out(shard: Path) -> Path:
    return shard.with_suffix(".left-out")


def _write_shard(
    shard: Path, source: ImageSource, indices: range, how: _Form, pool: ThreadPoolExecutor
) -> None:
    left_out = {}
    noted: set[str] = set()
    with (
        replacing(shard) as aside,
        aside.open("wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for index, content in zip(indices, _ahead(source, indices, how, pool), strict=True):
            key = source.keys[index]
            if isinstance(content, InputError):
                left_out[key] = reason_of(content)
                continue
            if (note := _note_of(key)) not in noted:
                _add(tar, note, json.dumps({"label": _class(source, index)}).encode())
                noted.add(note)
            _add(tar, key, content)
    write_sidecar(shard)
    write_atomically(_left_out(shard), json.dumps(left_out, indent=1))


def _ahead(
    source: ImageSource, indices: range, how: _Form, pool: ThreadPoolExecutor
) -> Iterator[bytes | InputError]:
    """The images' new files in their order, some made ahead."""

    def packed(index: int) -> bytes | InputError:
        try:
            return _packed(source, index, how)
        except StorageError:
            raise  # nothing is wrong with the image
        except InputError as error:
            return error

    for first in range(0, len(indices), 64):
        yield from pool.map(packed, indices[first : first + 64])


def _packed(source: ImageSource, index: int, how: _Form) -> bytes:
    """An image as it goes into a tar: its own file where it is small enough, or of more than 8 bits."""
    key, data = source.keys[index], source.read(index)
    if source.rules.deep or is_array(key):  # neither form can hold it
        decode_picture(data, key, source.rules)
        return data
    height, width = image_size(data, key)
    pixels = decode_image(data, key)  # not turned
    small = min(height, width) <= how.short_side
    if small and how.form == "jpeg":
        return data
    if not small:
        size = packed_size((height, width), how.short_side)
        pixels = render(pixels, View.identity(), size, "bicubic")
    orientation = read_header(data, key).orientation
    out = io.BytesIO()
    exif = Image.Exif()
    if orientation != UPRIGHT:
        exif[EXIF_TAG] = orientation
    image = Image.fromarray(pixels)
    if how.form == "jpeg":
        image.save(out, "JPEG", quality=how.quality, exif=exif)
    else:  # nothing is lost and hardly anything packed
        image.save(out, "TIFF", exif=exif)
    return out.getvalue()


def packed_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(height, width) of an image whose shorter side gets `short_side` pixels."""
    scale = short_side / min(size)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _note_of(key: str) -> str:
    folder, _, name = key.rpartition("/")
    base = name.rpartition(".")[0] or name
    return f"{folder}/{base}.json" if folder else f"{base}.json"


def _check_notes(source: ImageSource) -> None:
    """Images that differ in their suffix alone share a note, so they must share their class."""
    classes: dict[str, tuple[int, ...]] = {}
    for index, key in enumerate(source.keys):
        own = classes_of(source, index)
        if classes.setdefault(_note_of(key), own) != own:
            raise InputError(
                f"{key} and another image differ in their suffix alone, and have two classes: rename one"
            )


def _class(source: ImageSource, index: int) -> str | int | list[str | int] | None:
    """A class as a note says it: its name, or its number where names are numbers.

    A list where images may have several.
    """
    numbered = source.class_names == tuple(map(str, range(len(source.class_names))))
    said = [i if numbered else source.class_names[i] for i in classes_of(source, index)]
    return said if source.several is not None else next(iter(said), None)


def _add(tar: tarfile.TarFile, path: str, content: bytes) -> None:
    info = tarfile.TarInfo(path)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _check_space(folder: Path, source: ImageSource, how: _Form) -> None:
    sizes = []
    for index in spread_indices(len(source), _LOOKED_INTO):
        try:
            sizes.append(len(_packed(source, index, how)))
        except StorageError:
            raise
        except InputError:
            continue  # left out
    needed = sum(sizes) * len(source) // max(len(sizes), 1)
    if (fault := short_of_space(folder, needed)) is not None:
        raise InputError(fault)


def _finished(listing: Path, source: ImageSource, shards: list[Path]) -> Packed:
    left_out: dict[str, str] = {}
    done = [shard for shard in shards if _is_whole(shard)]
    for shard in done:
        left_out |= read_json(_left_out(shard), kind=dict)
    size = sum(shard.stat().st_size for shard in done)
    images = len(source) - len(left_out)
    if len(done) == len(shards):
        listed = [{"url": shard.name, "filesize": shard.stat().st_size} for shard in shards]
        content = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": listed}
        write_atomically(listing, json.dumps(content, indent=1))
    return Packed(listing.parent, images, size, left_out, len(done) == len(shards))
