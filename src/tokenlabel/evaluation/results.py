"""Results of an evaluation as files: numbers, a table of classes, a picture of confusions."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tokenlabel.evaluation.benchmarks import Benchmark
from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.evaluation.metrics import ClassificationCounts
from tokenlabel.evaluation.published import published_top1
from tokenlabel.files import write_atomically

__all__ = ["summarize", "write_results"]

_NAMED = 40  # with more classes than this, a picture has no room for their names


def summarize(
    classifier: Classifier,
    counts: Mapping[str, ClassificationCounts],
    *,
    data: str,
    split: str | None,
    benchmark: Benchmark,
) -> dict[str, Any]:
    """All that was measured and how, as plain values. Accuracies are fractions in [0, 1]."""
    facts, settings = classifier.facts, classifier.preprocessing
    published = None
    if benchmark == "imagenet" and classifier.has_tokens:
        published = published_top1(facts["model"], settings.image_size, settings.crop_pct)
    return {
        "data": data,
        "split": split,
        "benchmark": benchmark,
        "model": facts["model"],
        "checkpoint": facts["checkpoint"],
        "damaged": facts.get("damaged", []),
        "image_size": list(settings.image_size),
        "crop_pct": settings.crop_pct,
        "interpolation": settings.interpolation,
        "images": counts["class"].total,
        "rules": {rule: count.summary() for rule, count in counts.items()},
        "published": published,
    }


def write_results(
    folder: Path,
    results: Mapping[str, Any],
    counts: ClassificationCounts,
    class_names: Sequence[str],
) -> None:
    """Write results.json, classes.csv and, up to 4096 classes, confusion.png.

    The JSON file comes last, as the sign of success.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_classes(folder / "classes.csv", counts, class_names)
    if len(counts.confusion):
        _draw_confusion(folder / "confusion.png", counts, class_names)
    write_atomically(folder / "results.json", json.dumps(results, indent=2))


def _write_classes(file: Path, counts: ClassificationCounts, names: Sequence[str]) -> None:
    """One line a class that has images: how many, how many right, and what it is taken for."""
    with file.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["class", "images", "top1", "top5", "most confused with", "times"])
        accuracy = counts.per_class_accuracy().tolist()
        wrong = counts.confusion.clone().fill_diagonal_(0)
        for i, name in enumerate(names):
            images = int(counts.images[i])
            if not images:
                continue
            rival, times = (int(wrong[i].argmax()), int(wrong[i].max())) if len(wrong) else (0, 0)
            table.writerow(
                [
                    name,
                    images,
                    f"{accuracy[i]:.4f}",
                    f"{int(counts.top5[i]) / images:.4f}",
                    names[rival] if times else "",
                    times,
                ]
            )


def _draw_confusion(file: Path, counts: ClassificationCounts, names: Sequence[str]) -> None:
    """Of each true class (row), the share predicted as each class (column)."""
    present = (counts.confusion.sum(1) + counts.confusion.sum(0)).nonzero()[:, 0]
    part = counts.confusion[present][:, present].double()
    share = part / part.sum(1, keepdim=True).clamp(min=1)
    few = len(present) <= _NAMED
    side = 2.5 + 0.25 * len(present) if few else 9
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="true class")
    if few:
        shown = [names[i] for i in present.tolist()]
        axes.set_xticks(range(len(shown)), shown, rotation=90)
        axes.set_yticks(range(len(shown)), shown)
    figure.colorbar(picture, label="share of the true class's images", shrink=0.8)
    figure.savefig(file, dpi=120)
