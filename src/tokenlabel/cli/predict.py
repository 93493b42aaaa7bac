"""`tokenlabel predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from tokenlabel.choices import Arithmetic, Device
from tokenlabel.cli.said import SOME_LEFT_OUT, say_next

if TYPE_CHECKING:
    from tokenlabel.api.predict import Predictions

__all__ = ["predict"]

_SHOWN = 50  # rows of the table
_WIDTH = 200  # letters of a line, where the output is no terminal
_LEAST = 0.01  # confidence of a class to be named beside the answer


def predict(
    images: Annotated[tuple[str, ...], tyro.conf.Positional],
    *,
    checkpoint: Path | None = None,
    model: str | None = None,
    split: str | None = None,
    weights: Literal["auto", "ema", "model"] = "auto",
    image_size: int | None = None,
    crop_pct: float | None = None,
    top: int = 5,
    threshold: float = 0.5,
    batch_size: int = 64,
    workers: int = 4,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
    output: Path | None = None,
    overwrite: bool = False,
) -> int:
    """Predict the classes of your pictures, as a table or a file.

    tokenlabel predict photos --checkpoint runs/train --output predictions.csv

    Pictures that cannot be read are listed; the exit code is then 3.

    Predicts by the class token, or by the class token and the best patch tokens combined, depending on
    how the model was trained.

    Args:
        images: Image files, folders (searched recursively), patterns such as "photos/*.jpg", tar
            files, or any other data that `eval` takes.
        checkpoint: A run folder (its best checkpoint is used), one of its checkpoints, or a weights
            file; a file also needs --model.
        model: timm model name; without a checkpoint, its pretrained weights are used.
        split: Split of a table or a data set of the Hugging Face Hub.
        weights: Which weights of a run: the moving average (ema) or the trained weights (model).
            auto: ema if there is one.
        image_size: Input size in pixels (default: the checkpoint's).
        crop_pct: Share of the image's shorter side inside the center crop (default: the
            checkpoint's).
        top: Number of classes to keep for each image.
        threshold: For multi-label models: every class with at least this probability is predicted.
        batch_size: Images per batch.
        workers: Threads that load images.
        device: auto uses a GPU if there is one.
        dtype: Precision of the network. auto: half precision on GPUs; on CPUs the faster of float32
            and bfloat16, found by a short trial (float32 for fewer than 100 images).
        output: Write all predictions to this .csv, .json or .jsonl file.
        overwrite: Overwrite an existing file.
    """
    given = {**locals()}
    from tokenlabel.api.predict import predict as run

    result = run(**given)
    _print(result)
    name = model if checkpoint is None else checkpoint.name
    say_next(
        "export",
        *(("--checkpoint", checkpoint), ("--model", model)),
        ("--output", f"{name}-exported"),
    )
    return SOME_LEFT_OUT if result.unreadable else 0


def _print(result: Predictions) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    width = None if sys.stdout.isatty() else _WIDTH
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    table = Table(Column("image", overflow="fold"), "answer", "next")
    for found in result.predictions[:_SHOWN]:
        said = [f"{guess.title} {guess.confidence:.1%}" for guess in found.answers]
        others = [g for g in found.top if g not in found.answers and g.confidence >= _LEAST]
        table.add_row(
            found.image,
            ", ".join(said) or ("(none)" if found.error is None else "(not read)"),
            ", ".join(f"{guess.title} {guess.confidence:.1%}" for guess in others),
        )
    console.print(table)
    total, unreadable = len(result.predictions), result.unreadable
    note = "" if result.file else ": write them with --output predictions.csv"
    if total > _SHOWN:
        print(f"the first {_SHOWN} of {total:,} images{note}")
    if unreadable:
        print(f"{len(unreadable):,} of {total:,} not read: {unreadable[0].error}")
        for found in unreadable[1:_SHOWN]:
            print(f"  {found.error}")
        if len(unreadable) > _SHOWN:
            print(f"  and {len(unreadable) - _SHOWN} more{note}")
    if result.file is not None:
        print(f"written to {result.file}")
