"""Segmentation with few masks, and from pretraining with token labels. To resume, run it again.

    mkdir -p runs/camvid-data
    for part in training validation; do tar xf CAMVID/$part.tar -C runs/camvid-data; done
    cp CAMVID/classes.json runs/camvid-data
    OMP_NUM_THREADS=1 python proof/camvid.py --data runs/camvid-data [--workers 6] [--seeds 0 1 2]
        [--pretrained FILE] [--set KEY=VALUE ...] [--with-tokens RUN ... --without RUN ... [--of-masks]]

The data are training and validation scenes in ADE20K's layout (images/, annotations/, classes.json).
Three arms train with the recipe `camvid_cpu` for the same number of updates: on all 367 masks, on every
eighth (46), and on these 46 plus soft labels of the other 321 scenes, made by the network of the second
arm. With `--pretrained`, weights of EfficientNet-Lite0 from ImageNet, there are two more: a head on this
network, which stays as it is, learns the 46 masks, and its soft labels teach the small network. Given
students of `tokenlabel train` or `export`, one per seed and side, these students and the same
network from random weights are fine-tuned, and probed with a frozen backbone, with the recipe
`camvid_transfer`. With `--of-masks`, so is a student that learned nothing but token labels of the
training scenes' masks, which is trained first. Every network is evaluated once, at the end of its
schedule.

`--workers` runs are trained in parallel, on the GPU if there is one; the remaining cores load images. On
one core a run of the first kind takes ten minutes, one of the second 5 (frozen: 3). Finished runs
write a record to `proof/camvid/`, with the counts of every scene. The weights of the best networks
go to `proof/weights/`, the tables to `docs/segmentation.md`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from networks import PRETRAINED
from pages import with_tables
from safetensors.torch import load_file

from tokenlabel.api import segment
from tokenlabel.api.annotate import annotate
from tokenlabel.api.segment.comparison import compared
from tokenlabel.api.segment.evaluation import measure
from tokenlabel.api.segment.training import Choices, compose_recipe
from tokenlabel.api.train import train
from tokenlabel.compare.comparison import markdown, plus_minus
from tokenlabel.compare.plan import Job, make_records
from tokenlabel.compare.record import Record
from tokenlabel.files import replacing, write_atomically, write_tensors
from tokenlabel.runs.open import open_run
from tokenlabel.runs.recipe_file import to_yaml
from tokenlabel.segmentation.metrics import COUNTS, SegmentationCounts
from tokenlabel.segmentation.recipe import SegmentationRecipe

WORK = Path("runs/camvid")
RESULTS, WEIGHTS = Path("proof/camvid"), Path("proof/weights")
PAGE = Path("docs/segmentation.md")
EVERY = 8  # one mask of so many is kept
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
PAIRS = [(arm, other) for arm in TEACHERS for other in (FEW, FULL)]  # whose differences are shown
PAIRS += [(TOKENS, LABELS), (LABELS, RANDOM), (OF_MASKS, RANDOM), (OF_MASKS, TOKENS)]
WAYS = {
    "fine-tuned": (),
    "frozen": ("model.freeze=true", "augment.views=4", "model.head=linear4"),
}
STUDENT_OF_MASKS = WORK / "student-of-masks"
# it is shown crops of an eighth to a half of a scene
STUDENT: dict[str, Any] = {
    "recipe": "cifar10_lvvit", "image_size": 64, "epochs": 40, "batch_size": 16, "scale": "sqrt",
    "device_batch": 16, "mix": "none", "workers": 0, "cache": "ram",
    "settings": ["augment.scale=[0.1, 0.5]"],
}  # fmt: skip
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="CamVid in ADE20K's layout")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pretrained", help="weights of EfficientNet-Lite0, from ImageNet")
    parser.add_argument("--set", nargs="+", default=[], help="further values of the recipes")
    parser.add_argument(
        "--with-tokens", nargs="+", default=[], help="students (LV-ViT, ViT), one per seed"
    )
    parser.add_argument("--without", nargs="+", default=[], help="their equals without tokens")
    parser.add_argument(
        "--of-masks", action="store_true", help="also a student of token labels of masks"
    )
    parser.add_argument("--match", default="", help="make only runs whose name this finds")
    options = parser.parse_args()
    given = (options.with_tokens, options.without)
    if any(given) and any(len(side) != len(options.seeds) for side in given):
        parser.error("--with-tokens and --without need one student for each of --seeds")
    loaders = max((os.cpu_count() or 1) // options.workers - 1, 0)
    settings = (f"data.workers={loaders}", *options.set)
    few = with_few_masks(options.data)
    arms = {FULL: (options.data, None), FEW: (few, None), SOFT: (few, None)}
    if options.pretrained:
        arms |= {LARGE: (few, options.pretrained), BETTER: (few, options.pretrained)}

    def runs_of(arm: str, seeds: Sequence[int]) -> list[Run]:
        data, start = arms[arm]
        return [Run(arm, seed, data, settings, start) for seed in seeds]

    runs = {arm: runs_of(arm, options.seeds) for arm in arms}
    students = {}
    if options.with_tokens:
        students = {TOKENS: options.with_tokens, LABELS: options.without, RANDOM: options.without}
    if options.of_masks:
        students[OF_MASKS] = [str(STUDENT_OF_MASKS)] * len(options.seeds)
    tables = [runs]
    for way in WAYS:
        sides = {}
        for arm, starts in students.items():
            pairs = zip(options.seeds, starts, strict=True)
            sides[arm] = [Run(arm, seed, options.data, settings, of, way) for seed, of in pairs]
        tables.append(sides)
    # seed by seed; those on few masks are made by those that learn from their labels
    chosen = [
        run
        for of_one_seed in zip(*(side for sides in tables for side in sides.values()), strict=True)
        for run in of_one_seed
        if run.arm not in TEACHERS.values() and re.search(options.match, run.name)
    ]
    if any(run.arm == OF_MASKS for run in chosen):
        train_student_of_masks(options.data)  # the recipes of its runs name its network
    make_records([run.checked() for run in chosen], options.workers, said)
    parts = []
    for sides in tables:
        made = {arm: [r for r in side if r.job.file.exists()] for arm, side in sides.items()}
        made = {arm: side for arm, side in made.items() if side}
        if made:
            parts += [table(made), differences(made)]
    # the best of all seeds that have a record, also those that are not of this call
    seeds = sorted({int(file.stem.rpartition("-")[2]) for file in RESULTS.glob("*.json")})
    for kept in ((FULL,), tuple(TEACHERS)):
        of_all = (run for arm in kept if arm in arms for run in runs_of(arm, seeds))
        keep([run for run in of_all if run.job.file.exists()])
    tables = "\n\n".join(parts)
    write_atomically(PAGE, with_tables(PAGE.read_text(), "camvid.py", tables))
    print(tables)


def said(record: Record) -> None:
    print(
        f"{record.arm}, seed {record.seed}: {record.score:.2f} after {record.seconds / 60:.1f} min"
    )
    sys.stdout.flush()


def train_student_of_masks(data: Path) -> None:
    """An LV-ViT that learned the token labels of the training scenes' masks, and nothing else."""
    scenes, masks, classes = (
        str(data / path) for path in ("images/training", "annotations/training", "classes.json")
    )
    store = WORK / "labels-of-masks"
    spec = {"kind": "masks", "folder": masks, "classes": classes, "first_value": 1}
    annotate(data=scenes, output=store, annotator=spec | {"ignored_values": [0]})
    train(data=scenes, labels=str(store), output=STUDENT_OF_MASKS, **STUDENT)


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
        if link.resolve() != target.resolve():  # missing, or of data that lay elsewhere
            link.unlink(missing_ok=True)
            link.symlink_to(target.resolve())
    return place


def table(runs: dict[str, list[Run]]) -> str:
    """Means over seeds, in percent, and what a run took."""
    rows, machines = [], set()
    for side in runs.values():
        found = [run.job.record() for run in side]
        values = [
            {r.seed: 100 * r.details["measures"][name] for r in found}
            for name in ("miou", "boundary_iou", "class_accuracy", "pixel_accuracy")
        ]
        minutes = plus_minus({r.seed: r.seconds / 60 for r in found}, 1)
        rows.append([side[0].title, *map(plus_minus, values), minutes])
        machines |= {f"{r.details['device']}, {r.details['precision']}" for r in found}
    head = ["", "mean IoU", "boundary IoU", "class accuracy", "pixel accuracy", "minutes"]
    return f"{markdown(head, rows)}\n\nTrained on: {'; '.join(sorted(machines))}."


def differences(runs: dict[str, list[Run]]) -> str:
    """Pairs of arms, over the seeds that both have, and scenes."""
    rows = []
    for pair in PAIRS:
        by_seed = [{run.seed: run for run in runs.get(arm, ())} for arm in pair]
        seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
        if not seeds:
            continue
        first, second = ([counts(side[seed]) for seed in seeds] for side in by_seed)
        scenes = list(by_seed[0][seeds[0]].job.record().details["scenes"])
        found = compared(scenes, first, second)
        gap = found.differences["miou"]
        low, high = (100 * side for side in gap.interval)
        rows.append(
            [
                f"{' - '.join(pair)}, seeds {', '.join(map(str, seeds))}",
                f"{100 * gap.mean:+.2f} ({low:+.2f} to {high:+.2f})",
                f"{gap.p:.3f}",
                f"{found.first['miou'] / found.second['miou']:.1%}",
                f"{found.ahead} of {len(found.scenes)}",
            ]
        )
    head = ["", "mean IoU, 95 % interval", "p", "ratio", "scenes that are better"]
    return markdown(head, rows)


def as_text(counts: SegmentationCounts) -> list[str]:
    """A line for each scene."""
    return [" ".join(map(str, scene.flatten().tolist())) for scene in counts.scenes]


def counts(run: Run) -> SegmentationCounts:
    """The same, from a run's record."""
    lines = run.job.record().details["scenes"].values()
    found = torch.tensor([list(map(int, line.split())) for line in lines])
    return SegmentationCounts(found.view(len(found), -1, COUNTS))


def keep(runs: Sequence[Run]) -> None:
    """The best network in half precision, with its recipe, its classes and a card; no other."""
    run = max(runs, key=lambda run: run.job.record().score, default=None)
    if run is None or not run.folder.exists():
        return  # a record that came with the code
    target = WEIGHTS / f"camvid-{run.name}"
    target.mkdir(parents=True, exist_ok=True)
    write_network(run, target)
    for other in runs:
        if other is not run:
            shutil.rmtree(WEIGHTS / f"camvid-{other.name}", ignore_errors=True)


def write_network(run: Run, target: Path) -> None:
    """A run's network into a folder, measured, unless it is there already."""
    opened, record = open_run(run.folder, SegmentationRecipe), run.job.record()
    weights, recipe, card = (
        target / name for name in ("model.safetensors", "recipe.yaml", "README.md")
    )
    half = {
        name: value.to(torch.bfloat16) if value.is_floating_point() else value
        for name, value in load_file(opened.weights()).items()
    }
    known = load_file(weights) if card.exists() else {}  # the card is written last
    if known.keys() == half.keys() and all(torch.equal(known[name], half[name]) for name in half):
        return
    card.unlink(missing_ok=True)
    with replacing(weights) as aside:
        write_tensors(aside, half)
    data = dataclasses.replace(opened.recipe.data, root="camvid", labels=None, ignore_index=0)
    write_atomically(recipe, to_yaml(dataclasses.replace(opened.recipe, data=data)))
    write_atomically(target / "classes.json", json.dumps(opened.class_names) + "\n")
    measured = segment.evaluate(data=run.data, checkpoint=weights, recipe=str(recipe))
    low, high = measured.intervals["miou"]
    classes = ", ".join(f"{name} {iou:.2f}" for name, iou in measured.class_iou.items())
    text = f"""# {target.name}

A network for street scenes: the class of every pixel, one of CamVid's 11. ResNet-10t with UPerNet,
bfloat16, from random weights.

- Training: {run.arm}, seed {run.seed}, {record.details["updates"]} updates of recipe.yaml,
  {record.seconds / 60:.0f} minutes ({record.details["device"]}, {record.details["precision"]}).
- Mean IoU of the {measured.images} validation scenes: {measured.miou:.4f} (95 % interval {low:.4f} to
  {high:.4f}), boundary IoU {measured.boundary_iou:.4f}, pixel accuracy {measured.pixel_accuracy:.4f}.
- IoU by class: {classes}.

    tokenlabel segment eval --data camvid --checkpoint {weights} \\
        --recipe {recipe}
    tokenlabel segment predict --images photos --checkpoint {weights} \\
        --recipe {recipe}
"""
    write_atomically(card, text)


if __name__ == "__main__":
    main()
