"""`tokenlabel eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tokenlabel.choices import Arithmetic, Benchmark, Device
from tokenlabel.cli.said import say_next
from tokenlabel.progress import first_process, results

if TYPE_CHECKING:
    from tokenlabel.evaluation.results import EvalResult

__all__ = ["evaluate"]

_COLUMNS = {
    "top1": ("top-1", ".2%"),
    "top5": ("top-5", ".2%"),
    "map": ("mAP", ".2%"),
    "f1": ("F1", ".2%"),
    "loss": ("loss", ".4f"),
    "ece": ("ECE", ".4f"),
}


def evaluate(
    *,
    data: str,
    checkpoint: Path | None = None,
    model: str | None = None,
    split: str | None = None,
    benchmark: Benchmark = "folder",
    real_labels: Path | None = None,
    weights: Literal["auto", "ema", "model"] = "auto",
    image_size: int | None = None,
    crop_pct: float | None = None,
    token_weight: float = 0.5,
    batch_size: int = 64,
    workers: int = 4,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
    output: Path | None = None,
) -> None:
    """Measure the accuracy of a checkpoint on a folder of images.

    A model trained with token labels predicts in three ways, shown on one line each: by its class
    token, by its best patch token for each class, and by both combined (the published rule).

    To use several GPUs, start it with torchrun; the numbers are the same.

    Args:
        data: Images: a folder with one subfolder per class, a tar file, WebDataset shards, a
            Hugging Face data set, or Parquet files.
        checkpoint: A run folder (its best checkpoint is used), one of its checkpoints, or a weights
            file; a file also needs --model.
        model: timm model name; without a checkpoint, its pretrained weights are used.
        split: Split to evaluate (default: the validation split).
        benchmark: How the correct answers are found; "folder" takes them from the folder names.
        real_labels: File real.json with the reassessed labels for benchmark imagenet-real (default:
            timm's copy).
        weights: Which weights of a run: the moving average (ema) or the trained weights (model).
            auto: ema if there is one.
        image_size: Input size in pixels (default: the checkpoint's).
        crop_pct: Share of the image's shorter side inside the center crop (default: the
            checkpoint's).
        token_weight: Weight of the best patch token in the combined prediction.
        batch_size: Images per batch, in each process.
        workers: Data loading processes, for each process.
        device: auto uses a GPU if there is one.
        dtype: Precision of the network. auto: half precision on GPUs; on CPUs the faster of float32
            and bfloat16, found by a short trial (float32 for fewer than 100 images).
        output: Folder for results.json, classes.csv and confusion.png (default: evaluation/ in the
            run folder; nothing is written for other checkpoints).
    """
    given = {**locals()}
    from tokenlabel.api.evaluate import evaluate as run

    result = run(**given)
    if first_process():
        _print(result)
        part = Path(data, result.split or "")
        say_next(
            "predict",
            *(part if part.is_dir() else data, ("--split", split)),
            *(("--checkpoint", checkpoint), ("--model", model)),
        )


def _print(result: EvalResult) -> None:
    from rich.table import Table

    def say(line: str) -> None:
        results.print(line, soft_wrap=True)

    say(f"{result.data}: {result.found.line()}")
    chosen = f" ({result.weights} weights of update {result.step})" if result.weights else ""
    side = "x".join(map(str, result.image_size))
    say(
        f"{result.model}{chosen} at {side}, crop {result.crop_pct:g}: {result.images:,} images evaluated"
    )
    for reason, count in result.left_out.items():
        say(f"not judged: {count:,} images {reason}")
    for note in result.notes:
        say(note)
    columns = {name: _COLUMNS[name] for name in result.rules[result.rule] if name in _COLUMNS}
    table = Table("rule", *(title for title, _ in columns.values()))
    for rule, line in result.rules.items():
        main = len(result.rules) > 1 and rule == result.rule
        table.add_row(
            f"{rule} (this model's)" if main else rule,
            *(format(line[name], form) for name, (_, form) in columns.items()),
        )
    results.print(table)
    if result.published is not None:
        say(f"published: top-1 {result.published}")
    if result.folder is not None:
        say(f"written to {result.folder}")
