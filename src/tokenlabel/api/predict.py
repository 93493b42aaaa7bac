"""`tl.load` and `tl.predict`: a trained model, and its answers to images of any origin."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

from tokenlabel.choices import Arithmetic, Device
from tokenlabel.data.pictures import open_pictures
from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.evaluation.load import load_classifier
from tokenlabel.evaluation.predictions import Prediction, pictures_of
from tokenlabel.files import claim_file, replacing
from tokenlabel.models.device import resolve_device
from tokenlabel.progress import progress_bar
from tokenlabel.runs.open import WhichWeights
from tokenlabel.supervision import Rule

__all__ = ["Predictions", "load", "predict"]


@dataclass(frozen=True)
class Predictions:
    """What a model said of all images."""

    predictions: tuple[Prediction, ...]
    """One an image, in the order of the images."""
    model: str
    rule: Rule
    """How the model predicts: by its class token, or fused with its best tokens."""
    file: Path | None = None
    """Where they were written."""

    @property
    def unreadable(self) -> tuple[Prediction, ...]:
        """Those of images that could not be read."""
        return tuple(found for found in self.predictions if found.error is not None)


def load(
    checkpoint: str | Path | None = None,
    model: str | None = None,
    *,
    weights: WhichWeights = "auto",
    image_size: int | tuple[int, int] | None = None,
    crop_pct: float | None = None,
    device: Device = "auto",
    dtype: Arithmetic = "float32",
) -> Classifier:
    """A trained model with all it takes to ask it: `tl.load("runs/train").predict("cat.jpg")`.

    Arguments as of `load_classifier`; `device` "auto" takes a GPU where there is one, `dtype` is the
    arithmetic of the network. Raises InputError when something is missing or does not fit.
    """
    found = load_classifier(
        checkpoint, model, weights=weights, image_size=image_size, crop_pct=crop_pct
    )
    found.model.to(resolve_device(device))
    return found.in_arithmetic(dtype)


def predict(
    *,
    images: str | Path | Sequence[str | Path],
    checkpoint: str | Path | None = None,
    model: str | None = None,
    split: str | None = None,
    weights: WhichWeights = "auto",
    image_size: int | tuple[int, int] | None = None,
    crop_pct: float | None = None,
    top: int = 5,
    threshold: float = 0.5,
    batch_size: int = 64,
    workers: int = 4,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
    output: str | Path | None = None,
    overwrite: bool = False,
) -> Predictions:
    """A model's answers to images; arguments as the options of `tokenlabel predict`.

    An image that cannot be read has an `error` instead of an answer. Raises InputError where
    something is missing or does not fit, and where no image can be read.
    """
    if top < 1 or not 0 < threshold < 1:
        raise InputError(f"top={top} must be 1 or more, threshold={threshold} between 0 and 1")
    file = None if output is None else _claimed(Path(output), overwrite)
    classifier = load(
        checkpoint,
        model,
        weights=weights,
        image_size=image_size,
        crop_pct=crop_pct,
        device=device,
    )
    named = [images] if isinstance(images, (str, Path)) else images
    sources = open_pictures(
        [str(place) for place in named], split, orientation=classifier.orientation
    )
    total = sum(map(len, sources))
    classifier = classifier.in_arithmetic(dtype, batch=batch_size, images=total)
    pictures = chain.from_iterable(pictures_of(s, classifier.decode_rules) for s in sources)
    made = []
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=total, note="")
        for found in classifier.predictions(
            pictures, top=top, threshold=threshold, batch_size=batch_size, workers=workers
        ):
            made.append(found)
            bar.advance(task)
    result = Predictions(tuple(made), classifier.facts["model"], classifier.rule, file)
    if len(result.unreadable) == len(made):
        raise InputError(made[0].error or "")
    if file is not None:
        _write(file, result.predictions)
    return result


def _claimed(file: Path, overwrite: bool) -> Path:
    if file.suffix.lower() not in _WRITERS:
        raise InputError(f"{file}: predictions are written as {', '.join(_WRITERS)}")
    return claim_file(file, overwrite=overwrite)


def _write(file: Path, predictions: Sequence[Prediction]) -> None:
    # names of files need not be UTF-8: such bytes are written as they are
    with (
        replacing(file) as aside,
        aside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        _WRITERS[file.suffix.lower()](stream, predictions)


def _write_csv(stream: TextIO, predictions: Sequence[Prediction]) -> None:
    table = csv.writer(stream)
    most = max(len(found.top) for found in predictions)
    ranks = [f"{name}_{rank}" for rank in range(1, most + 1) for name in ("class", "confidence")]
    table.writerow(["image", "class", "title", "confidence", "classes", *ranks, "error"])
    for found in predictions:
        best = [cell for guess in found.top for cell in (guess.label, f"{guess.confidence:.6f}")]
        answer = [best[0], found.top[0].title, best[1]] if found.top else ["", "", ""]
        answer.append(";".join(found.labels))
        padding = [""] * (2 * most - len(best))
        table.writerow([found.image, *answer, *best, *padding, found.error or ""])


def _write_json(stream: TextIO, predictions: Sequence[Prediction]) -> None:
    json.dump([found.as_dict() for found in predictions], stream, indent=2)


def _write_jsonl(stream: TextIO, predictions: Sequence[Prediction]) -> None:
    stream.writelines(json.dumps(found.as_dict()) + "\n" for found in predictions)


_WRITERS = {".csv": _write_csv, ".json": _write_json, ".jsonl": _write_jsonl}
