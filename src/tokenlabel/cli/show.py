"""`tokenlabel show`: pictures of what labels and models say about images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from tokenlabel.evaluation.classifier import Classifier
    from tokenlabel.labels import LabelMap, LabelStore
    from tokenlabel.visualize.panels import Panel, Row

__all__ = ["show"]


def show(
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    *,
    labels: Path | None = None,
    annotator: str | None = None,
    checkpoint: Path | None = None,
    model: str | None = None,
    weights: Literal["auto", "ema", "model"] = "auto",
    classes: tuple[str, ...] = (),
    heat: int = 1,
    relevance: bool = False,
    output: Path = Path("show.png"),
) -> None:
    """Draw label maps, token predictions and relevance over images.

    Each image is a row: the photo, its label map (from a store, or made now by an annotator), the
    student's predictions token by token, and heat maps of single classes.

    Args:
        images: Image files.
        labels: A label store; an image's label is found by the end of its path ("cat/0001.jpg").
        annotator: A timm classifier (name or folder) that labels the images now.
        checkpoint: The student: a run's folder, or a file of weights together with --model.
        model: timm name of the student; alone, with its own pretrained weights.
        weights: Of a run: the moving average (ema) or the weights themselves (model).
        classes: Draw heat maps of these classes, by name or number.
        heat: Without --classes: draw heat maps of so many classes, the most probable ones.
        relevance: Also draw on what the student's answer rests: attention rollout, and
            gradient-weighted relevance for the classes of the heat maps.
        output: Picture to write: .png, or .html for a page that needs nothing else.
    """
    from tokenlabel.errors import InputError
    from tokenlabel.evaluation.classifier import load_classifier
    from tokenlabel.labels import LabelStore
    from tokenlabel.visualize.panels import write_pictures

    if labels is None and annotator is None and checkpoint is None and model is None:
        raise InputError("nothing to show: give --labels, --annotator, --checkpoint or --model")
    student = None
    if checkpoint is not None or model is not None:
        student = load_classifier(checkpoint, model, weights=weights)
    if relevance and student is None:
        raise InputError("--relevance explains a student: give its --checkpoint or --model")
    store = None if labels is None else LabelStore(labels)
    teacher = None if annotator is None else _annotator(annotator)
    rows = [_row(path, store, teacher, student, classes, heat, relevance) for path in images]
    write_pictures(output, rows)
    print(f"written to {output}")


def _row(
    path: Path,
    store: LabelStore | None,
    teacher: Any,
    student: Classifier | None,
    classes: Sequence[str],
    heat: int,
    relevance: bool,
) -> Row:
    from tokenlabel.data.decode import decode_image
    from tokenlabel.errors import InputError
    from tokenlabel.visualize.explain import (
        best_classes,
        class_probability,
        heat_panel,
        map_panel,
        relevance_panels,
        token_map,
    )
    from tokenlabel.visualize.overlay import highlight_colors
    from tokenlabel.visualize.panels import Row

    if not path.is_file():
        raise InputError(f"no image at {path}")
    image = decode_image(path.read_bytes(), str(path))
    maps: dict[str, LabelMap] = {}
    if store is not None:
        maps["label map"] = store[_key(store, path)]
    if teacher is not None:
        maps["annotator"] = teacher.annotate([teacher.prepare(str(path), image)])[0]
    if student is not None and student.has_tokens:
        maps["student's tokens"] = token_map(student, image)
    counts = {label_map.num_classes for label_map in maps.values()}
    counts |= set() if student is None else {student.num_classes}
    if len(counts) > 1:
        raise InputError(
            f"labels and models know different classes ({', '.join(map(str, sorted(counts)))} of"
            " them): show them one at a time"
        )
    names = _names(counts.pop(), store, student)
    chosen = _numbers(classes, names)
    if not chosen:
        likely = highlight_colors(list(maps.values())[:1])[1] if maps else None
        if likely is None:
            assert student is not None
            likely = best_classes(student, image)
        chosen = likely[:heat]
    panels: list[Panel] = [map_panel(title, image, found) for title, found in maps.items()]
    for number in chosen:
        panels += [
            heat_panel(
                f"{names[number]}: {title}", image, class_probability(found, number), found.extent
            )
            for title, found in maps.items()
        ]
    if relevance:
        assert student is not None
        panels += relevance_panels(student, image, chosen, names)
    return Row("/".join(path.parts[-2:]), image, panels, list(maps.values()), names)


def _annotator(name: str) -> Any:
    from tokenlabel.annotators.timm_classifier import TimmAnnotator

    return TimmAnnotator(name)


def _key(store: LabelStore, path: Path) -> str:
    """The store's key that the path ends with, the longest there is."""
    from tokenlabel.errors import InputError, nearest

    parts = path.resolve().parts
    ends = ["/".join(parts[start:]) for start in range(1, len(parts))]
    found = next((end for end in ends if end in store), None)
    if found is None:
        near = nearest(ends[-1], store.keys()[:1000])
        raise InputError(f"{store.location} has no label for {path}{near}")
    return found


def _names(
    num_classes: int, store: LabelStore | None, student: Classifier | None
) -> tuple[str, ...]:
    from tokenlabel.evaluation.classifier import class_titles

    if student is not None:
        return student.titles()
    if store is not None and store.manifest.class_names is not None:
        return class_titles(store.manifest.class_names)
    return tuple(map(str, range(num_classes)))


def _numbers(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """Classes by name or number."""
    from tokenlabel.errors import InputError, nearest

    numbers = {str(i): i for i in range(len(names))} | {name: i for i, name in enumerate(names)}
    strangers = [name for name in wanted if name not in numbers]
    if strangers:
        raise InputError(f"no such class: {strangers[0]!r}{nearest(strangers[0], numbers)}")
    return [numbers[name] for name in wanted]
