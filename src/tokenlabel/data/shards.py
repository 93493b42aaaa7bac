"""WebDataset shards: an image's class stands in a `.cls` or `.json` note beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from tokenlabel.data.classes import Classified, classify_by_value, classify_by_values
from tokenlabel.data.ranges import Ranges
from tokenlabel.errors import InputError
from tokenlabel.text import read_json

__all__ = ["NOTES", "classify_by_note", "listed_shards"]

NOTES = (".cls", ".json")  # where both are there, the first counts
_LARGEST_LIST = 1 << 26  # bytes
_NOTHING = object()  # a note that says no class


def classify_by_note(
    paths: Mapping[str, str], notes: Mapping[str, bytes], left_out: Counter[str], where: str
) -> Classified | None:
    """Classes of images from the notes beside them, or None where these are no shards.

    `paths` maps the path by which an image pairs with its note to the image's key; `notes` their
    paths to contents. A note belongs to the image of its own name but for the last suffix, or, by
    WebDataset's rule, for all from the first dot. Where any `.json` note holds a list, images may have
    several classes. Raises InputError for class notes without an image, images without a note, and
    notes that say no class.
    """
    by_base = {ending: _by_base(notes, ending) for ending in NOTES}
    used: set[str] = set()
    values = [_value(path, by_base, notes, used) for path in paths]
    alone = [note for note in by_base[".cls"].values() if note not in used]
    if alone:
        raise InputError(
            f"{len(alone)} of {len(by_base['.cls'])} .cls notes in {where} belong to no image, the"
            f" first is {alone[0]}: an image and its note must have one name"
        )
    if all(value is _NOTHING for value in values):
        left_out.update({"files ending in .json": len(notes)} if notes else {})
        return None
    keys = list(paths.values())
    _check_complete(keys, values, where)
    if any(isinstance(value, tuple) for value in values):
        rows = [value if isinstance(value, tuple) else (value,) for value in values]
        return classify_by_values(keys, rows, where)
    return classify_by_value(keys, values, where)


def listed_shards(location: str) -> list[str]:
    """The shards that a WebDataset index file (`wids`) lists; names are relative to it."""
    content = read_json(Ranges(location).whole(_LARGEST_LIST), location, kind=dict)
    shards = content.get("shardlist")
    if not isinstance(shards, list) or not all(
        isinstance(shard, dict) and isinstance(shard.get("url"), str) for shard in shards
    ):
        raise InputError(
            f"{location} is not a list of shards: it needs 'shardlist', each with a 'url'"
        )
    folder = location.rpartition("/")[0]
    return [
        url if "://" in url or url.startswith("/") or not folder else f"{folder}/{url}"
        for url in (shard["url"] for shard in shards)
    ]


def _by_base(notes: Mapping[str, bytes], ending: str) -> dict[str, str]:
    """Path without its ending -> path, of the notes with this ending."""
    return {path.removesuffix(ending): path for path in notes if path.endswith(ending)}


def _value(
    path: str, by_base: Mapping[str, dict[str, str]], notes: Mapping[str, bytes], used: set[str]
) -> object:
    """What the note of an image says, or _NOTHING."""
    name = PurePosixPath(path).name
    folder = path.removesuffix(name)
    for base in (path.rpartition(".")[0], folder + name.partition(".")[0]):
        for ending in NOTES:
            note = by_base[ending].get(base)
            if note is None:
                continue
            used.add(note)
            value = _said(notes[note], ending)
            if value is not _NOTHING:
                return value
    return _NOTHING


def _said(note: bytes, ending: str) -> object:
    try:
        text = note.decode().strip()
        content = json.loads(text)
    except UnicodeDecodeError:
        return _NOTHING
    except (ValueError, RecursionError):
        return text if ending == ".cls" else _NOTHING  # a class name, or nothing at all
    if not isinstance(content, dict):
        return content
    label = content.get("label", _NOTHING)
    return tuple(label) if isinstance(label, list) else label


def _check_complete(keys: Sequence[str], values: Sequence[object], where: str) -> None:
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise InputError(
            f"{len(twice)} keys of samples in {where} occur more than once, {twice[0]} for one:"
            " keys must be unique"
        )
    without = [key for key, value in zip(keys, values, strict=True) if value is _NOTHING]
    if without:
        raise InputError(
            f"{len(without)} of {len(keys)} samples in {where} have no class, {without[0]} for one:"
            " each needs a .cls note with its class number or name, or a .json note with one under"
            " 'label'"
        )
