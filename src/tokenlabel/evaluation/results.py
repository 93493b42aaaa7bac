"""Results of an evaluation: what was measured and how, where it is kept, and its files."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenlabel.data.source import Found
from tokenlabel.evaluation.metrics import Counts
from tokenlabel.files import claim_folder, replacing, write_atomically
from tokenlabel.output import TOKEN_SHARE
from tokenlabel.runs.evaluations import evaluation_folder
from tokenlabel.supervision import Rule

__all__ = ["EvalResult", "claim_results", "write_results"]


@dataclass(frozen=True)
class EvalResult:
    """All that was measured and how. Accuracies are fractions in [0, 1]."""

    rule: Rule
    """The rule of the headline: the one by which the student's method predicts."""
    rules: Mapping[str, Mapping[str, float]]
    """Of each rule: top1, top5, loss (nats), ece, images; of a model whose images may have several
    classes: map (mean average precision), f1, loss (nats, summed over classes), images."""
    images: int
    """How many were judged."""
    left_out: Mapping[str, int]
    """Reason to the number of images that were not judged for it."""
    notes: tuple[str, ...]
    """What a reader of the numbers should know, a line each."""
    data: str
    split: str | None
    benchmark: str
    found: Found
    """The account of the images."""
    images_digest: str
    """sha256 of the images' keys, labels and classes."""
    model: str
    checkpoint: str
    weights: str | None
    """Of a run: "ema" or "model"."""
    step: int | None
    """Of a run: the update of the checkpoint."""
    damaged: tuple[str, ...]
    """Checkpoints of the run that were passed over."""
    image_size: tuple[int, int]
    crop_pct: float
    fit: str
    interpolation: str
    token_weight: float
    dtype: str
    """The model's arithmetic: float32, bfloat16 or float16."""
    published: float | None
    """Top-1 in percent, where model, size and crop are those of a publication."""
    folder: Path | None = None
    """Where the files are."""
    counts: Counts | None = field(default=None, repr=False)
    """Of the headline's rule."""

    @property
    def top1(self) -> float:
        """Top-1 by the model's rule; not a number where images may have several classes."""
        return self.rules[self.rule].get("top1", math.nan)

    @property
    def map(self) -> float:
        """Mean average precision in [0, 1]; not a number where an image has one class."""
        return self.rules[self.rule].get("map", math.nan)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: everything but the folder and the counts."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["folder"], values["counts"]
        values["found"] = self.found.as_dict()
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}

    def own_folder(self, run: Path) -> Path:
        """Where these results belong in a run's folder."""
        place = re.sub(r"[*{].*", "", self.data.rstrip("/").rsplit("/", 1)[-1])
        token_weight = None if self.token_weight == TOKEN_SHARE else f"token{self.token_weight:g}"
        measured = {
            "weights": self.weights,
            "step": self.step,
            "data": place,
            "split": self.split,
            "benchmark": self.benchmark,
            "image_size": self.image_size,
            "crop": f"crop{self.crop_pct:g}",
            "fit": None if self.fit == "crop" else self.fit,
            "token_weight": token_weight,
            "images": self.images_digest,
        }
        if self.dtype != "float32":
            measured["dtype"] = self.dtype
        return evaluation_folder(run, measured, unnamed=("images",))


def write_results(folder: Path, result: EvalResult, class_names: Sequence[str]) -> None:
    """Write classes.csv and results.json; the JSON file comes last, as the sign of success."""
    assert result.counts is not None
    claim_results(folder)
    _write_classes(folder / "classes.csv", result.counts, class_names)
    write_atomically(folder / "results.json", json.dumps(result.as_dict(), indent=2))


def claim_results(folder: Path) -> None:
    """Make a folder for an evaluation. Raises InputError where it holds something else."""
    names = {"classes.csv", "results.json", "confusion.png"}
    claim_folder(
        folder,
        ours=lambda place: all(p.name in names or p.name[0] == "." for p in place.iterdir()),
    )


def _write_classes(file: Path, counts: Counts, names: Sequence[str]) -> None:
    """One line a class that has images."""
    rows = counts.table(names)
    with replacing(file) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]) if rows else ["class", "images"])
        table.writeheader()
        table.writerows(rows)
