"""`tokenlabel labels ...`: everything one does with a label store besides making it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tokenlabel.cli.said import SOME_LEFT_OUT, say, say_next

if TYPE_CHECKING:
    from tokenlabel.labels.health import Health
    from tokenlabel.labels.word_health import WordHealth

__all__ = [
    "average",
    "diff",
    "export_labels",
    "health",
    "import_labels",
    "info",
    "merge",
    "pull",
    "push",
    "verify",
]


def info(*, labels: str) -> None:
    """Show what a label store contains and how it was made.

    Args:
        labels: folder or remote location of the store.
    """
    from rich.table import Table

    from tokenlabel.labels import LabelStore
    from tokenlabel.progress import results

    store = LabelStore(labels)
    manifest = store.manifest
    table = Table(show_header=False, title=labels)
    size = sum(shard.bytes for shard in manifest.shards)
    table.add_row("images", str(len(store)))
    table.add_row("left out", str(len(manifest.left_out)))
    table.add_row("visual words" if manifest.words else "classes", str(store.num_classes))
    table.add_row("codec", manifest.codec)
    table.add_row("size", f"{size / 1e6:.2f} MB, {size / max(len(store), 1):.0f} bytes an image")
    table.add_row("shards", str(len(manifest.shards)))
    if len(store):
        label = store[store.keys()[0]]
        table.add_row("first map", f"{label.grid[0]} x {label.grid[1]} cells, top {label.k}")
    for part in ("dataset", "annotator"):
        for name, value in _lines(getattr(manifest, part)):
            table.add_row(f"{part}: {name}", value[:200])
    results.print(table)


def _lines(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The values of nested mappings by their names; what is empty or absent is left out."""
    for name, inner in value.items():
        if isinstance(inner, Mapping) and {"annotator_classes", "used"} <= inner.keys():
            # a class map: its class of each of the annotator's, mostly none, tells a reader nothing
            yield name, f"{inner['used']} of {inner['annotator_classes']} annotator classes used"
        elif isinstance(inner, Mapping):
            yield from ((f"{name}, {key}", text) for key, text in _lines(inner))
        elif isinstance(inner, bool):
            yield name, "yes" if inner else "no"
        elif isinstance(inner, list | tuple):
            if inner:
                yield name, ", ".join(map(str, inner))
        elif inner is not None:
            yield name, str(inner)


def verify(*, labels: str) -> int:
    """Check every record of a label store. Lists the damage and exits with 1 if there is any.

    Args:
        labels: folder or remote location of the store.
    """
    from tokenlabel.labels import LabelStore
    from tokenlabel.labels.maintain import verify as find_damage

    store = LabelStore(labels)
    damage = find_damage(store)
    for line in damage:
        say(line)
    say(f"{labels}: {len(damage) or 'no'} faults in {len(store)} labels")
    return 1 if damage else 0


def merge(*, labels: tuple[str, ...], output: Path, overwrite: bool = False) -> None:
    """Merge label stores of the same classes; or rewrite one store in the current format.

    Args:
        labels: folders of the stores to merge, in this order.
        output: folder of the new store.
        overwrite: write into a folder that contains other files.
    """
    from tokenlabel.labels import LabelStore
    from tokenlabel.labels.maintain import merge as join

    count = join([LabelStore(location) for location in labels], output, overwrite=overwrite)
    say(f"{output}: {count} labels")
    _train_next(output)


def _train_next(labels: Path) -> None:
    say_next("train", ("--data", "DATA"), ("--labels", labels))


def average(
    *, labels: tuple[str, ...], output: Path, top_k: int | None = None, overwrite: bool = False
) -> int:
    """Average the labels of several annotators of the same images into one store.

    Images that are not in all stores are left out; the exit code is then 3.

    Args:
        labels: folders of the stores; their classes or words must be the same.
        output: folder of the new store.
        top_k: classes kept per cell (default: as many as the stores have).
        overwrite: write into a folder that contains other files.
    """
    from tokenlabel.labels import LabelStore
    from tokenlabel.labels.average import average as mean
    from tokenlabel.labels.manifest import Manifest

    stores = [LabelStore(location) for location in labels]
    count = mean(stores, output, top_k=top_k, overwrite=overwrite)
    left = len(Manifest.load(output).left_out)
    say(f"{output}: {count} labels{f', {left} left out' if left else ''}")
    _train_next(output)
    return SOME_LEFT_OUT if left else 0


def diff(*, first: str, second: str, sample: int | None = None) -> None:
    """Measure how much the labels of two stores differ.

    Args:
        first: folder or remote location of a store.
        second: the store to compare it with.
        sample: number of randomly chosen images to compare (default: all).
    """
    from tokenlabel.labels import LabelStore
    from tokenlabel.labels.maintain import diff as compare

    found = compare(LabelStore(first), LabelStore(second), sample=sample)
    say(f"only in {first}: {found.only_first}, only in {second}: {found.only_second}")
    say(f"compared: {found.compared}, identical: {found.identical}")
    if found.resampled:
        say(f"of unequal grids, compared on the coarser one: {found.resampled}")
    if found.incomparable:
        say(f"not comparable, as they cover unequal parts of the image: {found.incomparable}")
    if found.top1_agreement is None or found.total_variation is None:
        say("no labels could be compared")
        return
    say(f"same best class: {found.top1_agreement:.2%} of cells")
    say(f"total variation: {found.total_variation:.4f} of 1, mean over cells")


def health(
    *,
    labels: str,
    data: str,
    split: str | None = None,
    output: Path | None = None,
    sample: int = 1000,
) -> int:
    """Check whether labels fit a data set, before you train on them.

    Prints each number with its meaning and ends with a verdict. Prints warnings and exits with 1 if
    training on the labels would not make sense.

    Args:
        labels: folder or remote location of the store.
        data: the labeled images.
        split: split to use (default: the training split).
        output: folder for health.json and plots.
        sample: number of randomly chosen images.
    """
    import json

    from tokenlabel.api.labels import labels_health
    from tokenlabel.files import claim_folder, write_atomically
    from tokenlabel.labels.health import Health
    from tokenlabel.pictures.health import draw_health

    if output is not None:
        claim_folder(output, ours=lambda path: (path / "health.json").exists())
    found = labels_health(labels=labels, data=data, split=split, sample=sample)
    for row in _aligned(_health_rows(found)):
        say(row)
    for warning in found.warnings:
        say(f"warning: {warning}")
    if isinstance(found, Health):
        for line in found.advice:
            say(f"advice: {line}")
    if output is not None:
        write_atomically(output / "health.json", json.dumps(found.as_dict(), indent=1))
        draw_health(found, output)
        say(f"pictures: {output}")
    if not found.warnings:
        kind = "labels" if isinstance(found, Health) else "words"
        say(f"These {kind} look usable for training.")
        say_next("train", ("--data", data), ("--split", split), ("--labels", labels))
    return 1 if found.warnings else 0


# what the numbers of `labels health` mean, in the order of `Health.means` and `WordHealth.means`
_MEANINGS = {
    "agreement": "share of images whose top class is the true one",
    "true_class_cells": "share of cells with the true class among their stored classes",
    "top_k_mass": "share of the probability that the stored classes hold",
    "entropy": "of a cell, from 0 (sure of one class) to 1 (all equally likely)",
    "words never seen": "words that are never the best of a cell",
    "share of the fullest word": "share of cells whose best word is the most frequent one",
    "words in equal use": "perplexity: this many, if all were used equally often",
    "words a cell": "perplexity: this many share the probability of a cell",
    "same word as a neighbor": "share of neighboring cells with the same best word",
    "by chance": "the same with the cells shuffled",
    "bits of the class": "what the best word of a cell tells about the class",
    "of": "bits that naming the class takes",
}


def _health_rows(found: Health | WordHealth) -> Iterator[tuple[str, str, str]]:
    """A name, a number and its meaning for all that `labels health` has measured."""
    from tokenlabel.labels.health import Health

    for name, value in found.means.items():
        number = str(value) if isinstance(value, int) else f"{value:.3f}"
        yield name.replace("_", " "), number, _MEANINGS[name]
    if isinstance(found, Health):
        if found.held_out is not None and found.memorization_gap is not None:
            yield (
                "accuracy on unseen images",
                f"{found.held_out:.3f}",
                "of the annotator, on images it was not taught on",
            )
            yield (
                "memorization gap",
                f"{found.memorization_gap:+.3f}",
                "agreement minus that accuracy",
            )
        yield (
            "classes never named",
            str(len(found.never_named)),
            f"of the {found.met} classes in these images, never the best of a cell",
        )
    for name, value in found.orientation.items():
        meaning = (
            "share of the color variance that the labels explain"
            if name == "as stored"
            else "the same with labels flipped or rotated: should be lower"
        )
        yield f"colors explained, {name}", f"{value:.3f}", meaning


def _aligned(rows: Iterable[tuple[str, str, str]]) -> list[str]:
    """Rows as lines of three columns."""
    found = list(rows)
    name, number = (max(len(row[column]) for row in found) for column in (0, 1))
    return [f"{row[0]:{name}}  {row[1]:>{number}}  {row[2]}" for row in found]


def import_labels(
    *,
    tree: Path,
    data: str,
    output: Path,
    split: str | None = None,
    extent: Literal["center-crop", "whole"] = "center-crop",
    codec: Literal["exact", "raw", "compact"] = "exact",
    overwrite: bool = False,
) -> int:
    """Convert released labels (`<class>/<stem>.pt`, float16 [2, K, H, W]) to a label store.

    The published labels were made on a center crop and cover only the center square of each image.
    That is the default; the rest of an image then has no label. Use --extent whole only for labels
    that were made on whole images.

    Images without a usable label are listed in the store's manifest; the exit code is then 3.

    Args:
        tree: folder of the released labels.
        data: the images they belong to.
        output: folder of the label store.
        split: split to use (default: the training split).
        extent: the part of each image that the labels cover.
        codec: exact keeps the float16 scores, which targets of kind "released" need; compact keeps
            probabilities.
        overwrite: write into a folder that contains other files.
    """
    given = {**locals()}
    from tokenlabel.api.labels import import_labels as bring

    found = bring(**given)
    for line in found.missing[:20]:
        say(f"  no label for {line}")
    by_stem = f" ({found.by_stem} by the stem of their name alone)" if found.by_stem else ""
    say(
        f"{output}: {found.matched} of {found.matched + len(found.missing)} images have"
        f" labels{by_stem}; {found.extra} label files belong to no image"
    )
    say_next("labels", "health", ("--labels", output), ("--data", data), ("--split", split))
    return SOME_LEFT_OUT if found.missing else 0


def export_labels(*, labels: str, output: Path, overwrite: bool = False) -> None:
    """Convert a label store to the released format, for VOLO, DynamicViT, UniFormer and others.

    Args:
        labels: folder or remote location of the store.
        output: folder of the `<class>/<stem>.pt` files.
        overwrite: write into a folder that contains other files.
    """
    from tokenlabel.labels import LabelStore
    from tokenlabel.labels.released import export_released

    count = export_released(LabelStore(labels), output, overwrite=overwrite)
    say(f"{output}: {count} label files")


def push(*, labels: Path, to: str) -> None:
    """Publish a label store with a generated card.

    Args:
        labels: folder of the store.
        to: hf://datasets/owner/name, s3://bucket/path, gs://bucket/path or any fsspec location.
    """
    from tokenlabel.labels.sharing import push as publish

    manifest = publish(labels, to)
    say(f"{to}: {sum(shard.records for shard in manifest.shards)} labels")
    say_next("labels", "pull", ("--labels", to), ("--output", "FOLDER"))


def pull(*, labels: str, output: Path, overwrite: bool = False) -> None:
    """Download a published label store; files that are already complete are kept.

    Args:
        labels: location of the store, such as hf://datasets/owner/name.
        output: folder of the copy.
        overwrite: write into a folder that contains other files.
    """
    from tokenlabel.labels.sharing import pull as fetch

    manifest = fetch(labels, output, overwrite=overwrite)
    say(f"{output}: {sum(shard.records for shard in manifest.shards)} labels")
    _train_next(output)
