"""The runs of `words.py`: students, and what becomes of them on CamVid's scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import feature_regression
from words_tables import RESULTS

import tokenlabel as tl
from tokenlabel.compare.plan import Job, slug
from tokenlabel.compare.record import Record
from tokenlabel.compare.training import accuracies


@dataclass(frozen=True)
class Run:
    """One training; `options` are those of the script that its record keeps."""

    arm: str
    student: str
    seed: int
    output: Path
    choices: Mapping[str, Any] = field(hash=False)  # of `tl.train`
    options: Mapping[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        return f"{self.student}-{slug(self.arm)}-{self.seed}"

    @property
    def folder(self) -> Path:
        return self.output / "runs" / self.name

    @property
    def job(self) -> Job:
        return Job(f"{self.student}, {self.arm}", self.seed, RESULTS / f"{self.name}.json", self)

    @property
    def labels(self) -> Sequence[str]:
        """The stores it learns from, unless its record is there."""
        return () if self.job.file.exists() else self.choices.get("labels", ())

    @property
    def chosen(self) -> dict[str, Any]:
        return {**self.choices, "output": self.folder, "seed": self.seed}

    def __call__(self) -> Record:
        return self.record(tl.train(**self.chosen, mix="none").results)

    def record(self, results: Mapping[str, Any]) -> Record:
        measures = results["measures"]
        # a student without classes is judged by the classes of its nearest neighbors
        score = measures["val/knn"] if "val/knn" in measures else accuracies(measures)[0]["class"]
        return self.scored(score, results, measures)

    def scored(
        self, score: float, results: Mapping[str, Any], measures: Mapping[str, Any]
    ) -> Record:
        details = {"images": results["images"], "updates": results["updates"]}
        return Record(
            arm=self.job.arm,
            seed=self.seed,
            score=100 * score,
            seconds=results["seconds"],
            details={"measures": dict(measures), **details, "options": dict(self.options)},
        )


@dataclass(frozen=True)
class RegressionRun(Run):
    """A student that learns the features of `teacher`, which is shown views of so many pixels."""

    teacher: Path
    shown: int
    weight: float

    def __call__(self) -> Record:
        done = feature_regression.train(self.teacher, self.shown, self.weight, **self.chosen)
        return self.record(done.results)


@dataclass(frozen=True)
class ScenesRun(Run):
    """A student fine-tuned on street scenes; `choices` are those of `tl.segment.train`."""

    def __call__(self) -> Record:
        trained = tl.segment.train(**self.chosen, recipe="camvid_transfer").results
        measured = tl.segment.evaluate(data=self.choices["data"], checkpoint=self.folder)
        measures = {"miou": measured.miou, "pixel_accuracy": measured.pixel_accuracy}
        return self.scored(measured.miou, trained, measures)
