"""`tokenlabel eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tokenlabel.runs.open import Run
    from tokenlabel.runs.recipe import Recipe

__all__ = ["evaluate"]

Benchmark = Literal[
    "folder",
    "imagenet",
    "imagenet-real",
    "imagenet-v2",
    "imagenet-a",
    "imagenet-r",
    "imagenet-sketch",
]


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
    device: Literal["auto", "cpu"] = "auto",
    output: Path | None = None,
) -> dict[str, Any]:
    """Accuracy of a checkpoint on a folder of images.

    A model trained with token labels predicts in three ways, each on its own line: by its class
    token, by its best token of each class, and by both fused (the published rule).

    Start it with torchrun to use several processes or GPUs: the numbers are the same.

    Args:
        data: The images: a folder with one subfolder a class, a tar of it, WebDataset shards,
            a Hugging Face data set or Parquet files.
        checkpoint: A run's folder (its best checkpoint is taken), one checkpoint in it, or a file of
            weights; a file needs --model too.
        model: A timm model name; without a checkpoint its own pretrained weights are taken.
        split: The part of the data to read, where it has parts; the validation part by default.
        benchmark: How the right answers are found; "folder" is by the folders' names.
        real_labels: The reassessed labels, real.json, of benchmark imagenet-real (default: the copy
            that comes with timm).
        weights: Of a run: the moving average (ema) or the weights themselves (model).
        image_size: Side of the model's input in pixels (default: the checkpoint's).
        crop_pct: Share of the image's shorter side that is shown (default: the checkpoint's).
        token_weight: Weight of the best token beside the class token, when fused.
        batch_size: Images at a time on each process.
        workers: Processes that read images, for each process.
        device: "cpu" leaves GPUs alone.
        output: Folder for results.json, classes.csv and confusion.png (default: evaluation/ in the
            run's folder; nothing is written for other checkpoints).
    """
    import torch
    from accelerate import PartialState

    from tokenlabel.data.open import announce, open_images
    from tokenlabel.evaluation.benchmarks import answers
    from tokenlabel.evaluation.classifier import load_classifier
    from tokenlabel.evaluation.measure import measure
    from tokenlabel.evaluation.results import summarize, write_results

    processes = PartialState(cpu=device == "cpu" or not torch.accelerator.is_available())
    classifier = load_classifier(
        checkpoint, model, weights=weights, image_size=image_size, crop_pct=crop_pct
    )
    source = open_images(data, split, "val")
    announce(source, data)
    split = source.found.part
    counts = measure(
        classifier,
        source,
        answers(source, classifier.class_names, benchmark, real_labels),
        batch_size=batch_size,
        workers=workers,
        token_weight=token_weight,
        processes=processes,
    )
    results = summarize(classifier, counts, data=data, split=split, benchmark=benchmark)
    if processes.is_main_process:
        folder = output or _own_folder(classifier.run, data, split, benchmark)
        _print(results)
        if folder is not None:
            best = counts.get("fused", counts["class"])
            write_results(folder, results, best, classifier.titles())
            print(f"written to {folder}")
    return results


def _own_folder(
    run: Run[Recipe] | None, data: str, split: str | None, benchmark: str
) -> Path | None:
    """Where the results of a run's checkpoint belong: a folder for each set of images."""
    if run is None:
        return None
    words = [Path(data).name.split(".")[0] or "data", split or "", benchmark]
    return run.folder / "evaluation" / "-".join(filter(None, words))


def _print(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    side = "x".join(map(str, results["image_size"]))
    table = Table("rule", "top-1", "top-5", "loss", "ECE")
    for rule, line in results["rules"].items():
        table.add_row(
            rule,
            f"{line['top1']:.2%}",
            f"{line['top5']:.2%}",
            f"{line['loss']:.4f}",
            f"{line['ece']:.4f}",
        )
    console = Console(highlight=False)
    what = f"{results['model']} at {side} on {results['data']}: {results['images']} images"
    console.print(what, soft_wrap=True)
    console.print(table)
    if results["published"]:
        console.print(f"published: {results['published']}")
