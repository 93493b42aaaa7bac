"""Segmentation with few masks, and what token labels are worth as a start; stopped, it goes on.

    python proof/camvid.py --data CAMVID [--workers 2] [--seeds 0 1 2]
                           [--set KEY=VALUE ...] [--with-tokens RUN ... --without RUN ...]

CAMVID holds training and validation scenes in ADE20K's layout (images/, annotations/, classes.json).
Three arms train by the recipe `camvid_cpu`, with the same number of updates: on all 367 masks, on every
eighth (46), and on these 46 with soft labels of the other 321 scenes, made by the network of the second
arm. With students of `tokenlabel train` or `export`, one a seed and side, these and their network from
random weights are fine-tuned, and probed frozen, by the recipe `camvid_transfer`. Finished runs leave a
record in `proof/camvid/`, the best networks their weights in `proof/weights/`, and the tables go to
`docs/segmentation.md`.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenlabel.api import segment
from tokenlabel.api.annotate import annotate
from tokenlabel.compare.comparison import markdown, plus_minus
from tokenlabel.compare.plan import Job, make_records
from tokenlabel.compare.record import Record
from tokenlabel.files import replacing, write_atomically, write_tensors

WORK = Path("runs/camvid")
RESULTS, WEIGHTS = Path("proof/camvid"), Path("proof/weights")
PAGE = Path("docs/segmentation.md")
MARKS = ("<!-- made by proof/camvid.py -->\n", "\n<!-- end -->")
EVERY = 8  # one mask of so many is kept
GRID = (90, 120)  # cells of the soft labels: 4 pixels on a side

FULL, FEW, SOFT = "367 masks", "46 masks", "46 masks + soft labels"
TOKENS, LABELS, RANDOM = "token labels", "labels only", "random weights"
WAYS = {
    "fine-tuned": (),
    "frozen": ("model.freeze=true", "augment.views=4", "model.head=linear4"),
}
COMMON = ("data.workers=0", "trackers=[]", "engine.precision=fp32")


@dataclass(frozen=True)
class Run:
    """One training of the plan; `start` is the student whose weights it begins with."""

    arm: str
    seed: int
    data: Path
    start: str | None = None
    way: str | None = None  # of WAYS, in the comparison of students
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        words = " ".join(filter(None, (self.arm.replace("+", "and"), self.way))).split()
        return "-".join([*words, str(self.seed)])

    @property
    def folder(self) -> Path:
        return WORK / self.name

    @property
    def job(self) -> Job:
        title = f"{self.arm}, {self.way}" if self.way else self.arm
        return Job(title, self.seed, RESULTS / f"{self.name}.json", self)

    def __call__(self) -> Record:
        """Train, and say what came of it."""
        began = time.process_time()
        settings = (*COMMON, *self.settings)
        if self.way:
            settings += WAYS[self.way]
        if self.arm == RANDOM:
            settings += ("model.weights=null",)
        result = segment.train(
            data=self.data,
            output=self.folder,
            recipe="camvid_transfer" if self.way else "camvid_cpu",
            weights=self.start,
            labels=self._labels() if self.arm == SOFT else None,
            seed=self.seed,
            settings=settings,
        ).results
        return Record(
            arm=self.job.arm,
            seed=self.seed,
            score=100 * result["measures"]["val/miou"],
            seconds=result["seconds"],
            details={
                "measures": result["measures"],
                "images": result["images"],
                "updates": result["updates"],
                "processor_seconds": round(time.process_time() - began, 1),
            },
        )

    def _labels(self) -> Path:
        """The label store that the network on few masks makes; it goes on where it stopped."""
        store = WORK / f"labels-{self.seed}"
        few = Run(FEW, self.seed, self.data)
        annotate(
            data=str(self.data / "images" / "training"),
            output=store,
            annotator={
                "kind": "segmenter",
                "model": str(few.folder),
                "grid": list(GRID),
                "flip": True,
            },
        )
        return store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="CamVid in ADE20K's layout")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="+", default=[], help="further values of the recipes")
    parser.add_argument("--with-tokens", nargs="+", default=[], help="students, one a seed")
    parser.add_argument("--without", nargs="+", default=[], help="their equals without tokens")
    options = parser.parse_args()
    few = with_few_masks(options.data)
    arms = {FULL: options.data, FEW: few, SOFT: few}
    more = tuple(options.set)
    runs = {
        arm: [Run(arm, seed, data, settings=more) for seed in options.seeds]
        for arm, data in arms.items()
    }
    make([*runs[FULL], *runs[FEW]], options.workers)
    make(runs[SOFT], options.workers)
    tables = [table(runs), *compared(options.data, runs, ((SOFT, FEW), (SOFT, FULL)), "masks")]
    for arm in (FULL, SOFT):
        keep(max(runs[arm], key=lambda run: run.job.record().score))
    if options.with_tokens:
        tables += students(options)
    before, mark, rest = PAGE.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    write_atomically(PAGE, before + mark + "\n\n".join(tables) + end + after)
    print("\n\n".join(tables))


def students(options: argparse.Namespace) -> list[str]:
    """What one start is worth beside another."""
    sides = {TOKENS: options.with_tokens, LABELS: options.without, RANDOM: options.without}
    tables = []
    for way in WAYS:
        runs = {
            f"{arm}, {way}": [
                Run(arm, seed, options.data, start, way, tuple(options.set))
                for seed, start in zip(options.seeds, starts, strict=True)
            ]
            for arm, starts in sides.items()
        }
        make([run for side in runs.values() for run in side], options.workers)
        tokens, labels, random = runs
        tables += [
            table(runs),
            *compared(options.data, runs, ((tokens, labels), (labels, random)), way),
        ]
    return tables


def make(runs: Sequence[Run], workers: int) -> None:
    make_records([run.job for run in runs], workers, lambda r: print(r, flush=True))


def with_few_masks(data: Path) -> Path:
    """The same data set with every eighth training mask, by links."""
    place = WORK / "few"
    masks = place / "annotations" / "training"
    masks.mkdir(parents=True, exist_ok=True)
    whole = sorted((data / "annotations" / "training").iterdir())
    links = {
        place / "images": data / "images",
        place / "classes.json": data / "classes.json",
        place / "annotations" / "validation": data / "annotations" / "validation",
        **{masks / mask.name: mask for mask in whole[::EVERY]},
    }
    for link, target in links.items():
        if not link.exists():
            link.symlink_to(target.resolve())
    return place


def table(runs: dict[str, list[Run]]) -> str:
    """Means over seeds, in percent, and what a run took."""
    rows = []
    for arm, side in runs.items():
        found = [run.job.record() for run in side]
        values = [
            {r.seed: 100 * r.details["measures"][f"val/{name}"] for r in found}
            for name in ("miou", "boundary_iou", "class_accuracy", "pixel_accuracy")
        ]
        minutes = {r.seed: r.details["processor_seconds"] / 60 for r in found}
        rows.append([arm, *map(plus_minus, values), plus_minus(minutes, 0)])
    head = ["", "mean IoU", "boundary IoU", "class accuracy", "pixel accuracy", "CPU minutes"]
    return markdown(head, rows)


def compared(
    data: Path, runs: dict[str, list[Run]], pairs: Sequence[tuple[str, str]], name: str
) -> list[str]:
    """The differences of pairs of arms, over seeds and scenes."""
    rows = []
    for ours, theirs in pairs:
        found = segment.compare(
            data=data,
            checkpoints=[run.folder for run in runs[ours]],
            against=[run.folder for run in runs[theirs]],
            output=RESULTS / "compared" / f"{name}-{len(rows)}.json",
        )
        gap = found.differences["miou"]
        low, high = (100 * side for side in gap.interval)
        rows.append(
            [
                f"{ours} - {theirs}",
                f"{100 * gap.mean:+.2f} ({low:+.2f} to {high:+.2f})",
                f"{gap.p:.3f}",
                f"{found.first['miou'] / found.second['miou']:.1%}",
                f"{found.ahead} of {len(found.scenes)}",
            ]
        )
    head = ["", "mean IoU, 95 % interval", "p", "ratio", "scenes that are better"]
    return [markdown(head, rows)]


def keep(run: Run) -> None:
    """The network of a run in half precision, with its recipe and a card."""
    import torch
    from safetensors.torch import load_file

    from tokenlabel.runs.open import open_run
    from tokenlabel.runs.recipe_file import to_yaml
    from tokenlabel.segmentation.recipe import SegmentationRecipe

    opened, record = open_run(run.folder, SegmentationRecipe), run.job.record()
    target = WEIGHTS / f"camvid-{run.name}"
    target.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.to(torch.bfloat16) if value.is_floating_point() else value
        for name, value in load_file(opened.weights()).items()
    }
    with replacing(target / "model.safetensors") as aside:
        write_tensors(aside, weights)
    data = dataclasses.replace(opened.recipe.data, root="camvid", labels=None)
    recipe = dataclasses.replace(opened.recipe, data=data)
    write_atomically(target / "recipe.yaml", to_yaml(recipe))
    measured = segment.evaluate(
        data=run.data,
        checkpoint=target / "model.safetensors",
        recipe=str(target / "recipe.yaml"),
    )
    low, high = measured.intervals["miou"]
    classes = ", ".join(f"{name} {iou:.2f}" for name, iou in measured.class_iou.items())
    card = f"""# {target.name}

A network for street scenes: the class of every pixel, one of CamVid's 11. ResNet-10t with UPerNet,
bfloat16, from random weights.

- Training: {run.arm}, seed {run.seed}, {record.details["updates"]} updates of recipe.yaml,
  {record.details["processor_seconds"] / 60:.0f} CPU minutes.
- Mean IoU of the {measured.images} validation scenes: {measured.miou:.4f} (95 % interval {low:.4f} to
  {high:.4f}), boundary IoU {measured.boundary_iou:.4f}, pixel accuracy {measured.pixel_accuracy:.4f}.
- IoU by class: {classes}.

    tokenlabel segment eval --data camvid --checkpoint {target}/model.safetensors \\
        --recipe {target}/recipe.yaml
"""
    write_atomically(target / "README.md", card)


if __name__ == "__main__":
    main()
