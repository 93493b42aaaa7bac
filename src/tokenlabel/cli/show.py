"""`tokenlabel show`: pictures of what labels and models say about images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from tokenlabel.annotators.protocol import Annotator
    from tokenlabel.choices import Orientation
    from tokenlabel.evaluation.classifier import Classifier
    from tokenlabel.labels import LabelMap, LabelStore

__all__ = ["show"]


def show(
    images: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    *,
    labels: Path | None = None,
    data: str | None = None,
    split: str | None = None,
    words: tuple[int, ...] = (),
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

    Each image is a row: the photo, its label map (from a store or an annotator), the student's
    prediction for each token, and heat maps of single classes. If the student has no classes, its
    tokens show the visual words that it learned; --labels with a store of the same words shows the
    annotator's beside them.

    Args:
        images: Image files.
        labels: A label store. An image is matched by the end of its path ("cat/0001.jpg").
        data: Instead of images: the images of a store of visual words. Draws words, with their
            frequency and most typical patches.
        split: Split to use (default: the training split).
        words: With --data: the numbers of the words to draw (default: twelve, from most to least
            frequent).
        annotator: A classifier that labels the images now: a timm name, a folder, or a run folder.
        checkpoint: The student: a run folder, or a weights file together with --model.
        model: timm name of the student; without a checkpoint, its pretrained weights are used.
        weights: Which weights of a run: the moving average (ema) or the trained weights (model).
        classes: Draw heat maps of these classes, by name or number.
        heat: Without --classes: number of heat maps, for the most probable classes.
        relevance: Also draw what the student's prediction is based on: attention rollout, and
            gradient-weighted relevance for the classes of the heat maps.
        output: Picture to write: .png, or .html for a self-contained page (not with --data).
    """
    from tokenlabel.annotators.classifier import ClassifierSpec
    from tokenlabel.data.decode import decode_image, decode_picture
    from tokenlabel.data.rules import AS_STORED
    from tokenlabel.errors import InputError
    from tokenlabel.evaluation.load import load_classifier
    from tokenlabel.labels import LabelStore
    from tokenlabel.models import weights_or
    from tokenlabel.pictures.explain import explain
    from tokenlabel.pictures.panels import write_pictures

    if data is not None:
        from tokenlabel.api.labels import show_words
        from tokenlabel.files import claim_file, replacing

        if labels is None or images:
            raise InputError("--data shows the words of a store: give --labels, and no images")
        if output.suffix.lower() != ".png":
            raise InputError(f"{output}: the sheet of words is one picture: write a .png")
        sheet = show_words(labels=str(labels), data=data, split=split, words=words)
        with replacing(claim_file(output, overwrite=True)) as aside:
            sheet.save(aside, format="PNG")
        print(f"written to {output}")
        return
    if not images:
        raise InputError("name images to show, or the images of visual words by --data")
    if labels is None and annotator is None and checkpoint is None and model is None:
        raise InputError("nothing to show: give --labels, --annotator, --checkpoint or --model")
    student = None
    if checkpoint is not None or model is not None:
        student = load_classifier(checkpoint, model, weights=weights)
    if relevance and student is None:
        raise InputError("--relevance explains a student: give its --checkpoint or --model")
    if relevance and student is not None and student.num_classes == 0:
        raise InputError(
            "--relevance explains the class that a student names, and this one was trained without"
            " classes: leave --relevance out"
        )
    store = None if labels is None else LabelStore(labels)
    if student is not None and student.num_classes == 0:
        _require_same(student, store, annotator)
    known = None if store is None else store.manifest.names
    teacher: Annotator[Any] | None = None
    orientation: Orientation = "ignore"  # or as the labels' images, else the student's, were turned
    if store is not None:
        orientation = store.manifest.orientation
    elif student is not None:
        orientation = student.orientation
    turned = replace(AS_STORED, orientation=orientation)
    rules = turned
    if annotator is not None:
        with weights_or("give --annotator FOLDER (written by `tokenlabel teach`)"):
            built = ClassifierSpec(model=annotator, keep_classes=True).build(())
        teacher, known = built, built.class_names
        rules = replace(turned, channels=built.channels)
    rows = []
    for path in images:
        if not path.is_file():
            raise InputError(f"no image at {path}")
        content = path.read_bytes()
        image = decode_picture(content, str(path), turned)
        shown = None if student is None else student.decode(content, str(path), turned)
        maps: dict[str, LabelMap] = {}
        if store is not None:
            maps["label map"] = store[_key(store, path)]
        if teacher is not None:
            pixels = decode_image(content, str(path), rules)
            maps["annotator"] = teacher.annotate([teacher.prepare(str(path), pixels)])[0]
        name = "/".join(path.parts[-2:])
        rows.append(explain(name, image, maps, student, known, classes, heat, relevance, shown))
    write_pictures(output, rows)
    print(f"written to {output}")


def _require_same(student: Classifier, store: LabelStore | None, annotator: str | None) -> None:
    """Raises InputError where labels name something else than the tokens of a student without classes.

    Equally many words or classes would be drawn in the same colors.
    """
    from tokenlabel.errors import InputError

    learned = student.vocabulary
    if learned is None:
        return
    if store is not None and store.manifest.vocabulary_sha256 != learned:
        what = "visual words" if learned else "classes"
        raise InputError(
            f"{store.location} does not hold the {what} that the student's tokens show: give"
            " --labels of a store with these, or none"
        )
    if annotator is not None and learned:
        raise InputError(
            f"{annotator} names classes, and the student learned visual words: leave --annotator out"
        )


def _key(store: LabelStore, path: Path) -> str:
    """The store's key that the path ends with, the longest there is."""
    from tokenlabel.data.splits import named_like_a_part
    from tokenlabel.errors import InputError, nearest

    parts = path.resolve().parts
    ends = ["/".join(parts[start:]) for start in range(1, len(parts))]
    found = next((end for end in ends if end in store), None)
    if found is None:
        near = nearest(ends[-1], store.keys()[:1000])
        raise InputError(f"{store.location} has no label for {path}{near}")
    labeled = store.manifest.dataset.get("found", {}).get("part")
    part = parts[-found.count("/") - 2]  # where its data set lies, or the part of it
    if labeled is not None and part != labeled and named_like_a_part(part):
        raise InputError(
            f"{store.location} has no label for {path}: it labels the part {labeled!r}, which has an"
            " image of the same name"
        )
    return found
