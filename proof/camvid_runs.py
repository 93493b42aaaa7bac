"""The runs of `camvid.py`: networks on all or few masks, and students carried on to scenes."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from networks import PRETRAINED

from tokenlabel.api import segment
from tokenlabel.api.annotate import annotate
from tokenlabel.api.segment.evaluation import measure
from tokenlabel.api.segment.training import Choices, compose_recipe
from tokenlabel.compare.plan import Job, make_records
from tokenlabel.compare.record import Record
from tokenlabel.runs.open import open_run
from tokenlabel.segmentation.metrics import COUNTS, SegmentationCounts
from tokenlabel.segmentation.recipe import SegmentationRecipe

WORK = Path("runs/camvid")
RESULTS = Path("proof/camvid")
SHOWN_MORE = "data.mask_repeats=7"  # with soft labels: half of a batch are scenes with masks
GRID = (90, 120)  # cells of the soft labels: 4 pixels on a side

FULL, FEW, SOFT = "367 masks", "46 masks", "46 masks + soft labels"
LARGE, BETTER = "46 masks, pretrained backbone", "46 masks + soft labels by a pretrained backbone"
TEACHERS = {SOFT: FEW, BETTER: LARGE}  # whose network makes the soft labels
LARGE_NETWORK = (
    f"model.backbone={PRETRAINED}", "model.kwargs={}", "model.channels=64",
    "model.freeze=true", "augment.views=8",
)  # fmt: skip
TOKENS, LABELS, RANDOM = "token labels", "labels only", "random weights"
OF_MASKS = "token labels of masks"
WAYS = {
    "fine-tuned": (),
    "frozen": ("model.freeze=true", "augment.views=4", "model.head=linear4"),
}
COMMON = ("engine.device=auto", "data.val_split=null", "trackers=[]")


@dataclass(frozen=True)
class Run:
    """One training of the plan; `start` are the weights that it, or its teacher, begins with."""

    arm: str
    seed: int
    data: Path
    settings: tuple[str, ...]
    start: str | None = None
    way: str | None = None  # of WAYS, in the comparison of students

    @property
    def title(self) -> str:
        return f"{self.arm}, {self.way}" if self.way else self.arm

    @property
    def name(self) -> str:
        arm = self.arm.replace("+", "and").replace(",", "")
        words = " ".join(filter(None, (arm, self.way))).split()
        return "-".join([*words, str(self.seed)])

    @property
    def folder(self) -> Path:
        return WORK / self.name

    @property
    def _choices(self) -> Choices:
        settings = (*COMMON, *self.settings)
        if self.way:
            settings += WAYS[self.way]
        if self.arm == RANDOM:
            settings += ("model.weights=null",)
        if self.arm == LARGE:
            settings += LARGE_NETWORK
        if self.arm in TEACHERS:
            settings += (SHOWN_MORE,)
        return {
            "data": self.data,
            "recipe": "camvid_transfer" if self.way else "camvid_cpu",
            "weights": None if self.arm in TEACHERS else self.start,
            "seed": self.seed,
            "settings": settings,
        }

    @property
    def recipe(self) -> dict[str, Any]:
        """What its result depends on, besides the data and the weights that it begins with."""
        whole = dataclasses.asdict(compose_recipe(**self._choices))
        parts = {
            part: whole[part] for part in ("augment", "model", "loss", "optimizer", "schedule")
        }
        del parts["model"]["weights"]
        return cast(dict[str, Any], json.loads(json.dumps(parts)))

    def checked(self) -> Job:
        """Its job, whose record, if there is one, is of the same recipe."""
        found = self.job.record().details.get("recipe") if self.job.file.exists() else None
        if self.job.file.exists() and found != self.recipe:
            sys.exit(f"{self.job.file} is of another recipe: remove it, and it is made again")
        return self.job

    @property
    def job(self) -> Job:
        return Job(self.title, self.seed, RESULTS / f"{self.name}.json", self)

    def __call__(self) -> Record:
        """Train, and measure what came of it."""
        labels = self._labels() if self.arm in TEACHERS else None
        trained = segment.train(output=self.folder, labels=labels, **self._choices).results
        result, by_scene, pairs = measure(self.data, self.folder)
        scenes = [pair.key for pair in pairs.items]
        facts = open_run(self.folder, SegmentationRecipe).facts
        return Record(
            arm=self.title,
            seed=self.seed,
            score=100 * result.miou,
            seconds=trained["seconds"],
            details={
                "measures": result.summary(),
                "images": trained["images"],
                "updates": trained["updates"],
                "recipe": self.recipe,
                "device": facts["devices"][0] if facts["devices"] else "one core of a CPU",
                "precision": facts["precision"],
                "scenes": dict(zip(scenes, as_text(by_scene), strict=True)),
            },
        )

    def _labels(self) -> Path:
        """The label store of the network on few masks, which is trained first."""
        teacher = dataclasses.replace(self, arm=TEACHERS[self.arm])
        make_records([teacher.checked()])
        store = WORK / f"labels-{teacher.name}"
        spec = {"kind": "segmenter", "model": str(teacher.folder), "grid": list(GRID), "flip": True}
        annotate(data=str(self.data / "images" / "training"), output=store, annotator=spec)
        return store


def as_text(counts: SegmentationCounts) -> list[str]:
    """A line for each scene."""
    return [" ".join(map(str, scene.flatten().tolist())) for scene in counts.scenes]


def counts(run: Run) -> SegmentationCounts:
    """The same, from a run's record."""
    lines = run.job.record().details["scenes"].values()
    found = torch.tensor([list(map(int, line.split())) for line in lines])
    return SegmentationCounts(found.view(len(found), -1, COUNTS))
