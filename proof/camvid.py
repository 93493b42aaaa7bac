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
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from at_once import loaders, said
from camvid_runs import (
    BETTER,
    FEW,
    FULL,
    LABELS,
    LARGE,
    OF_MASKS,
    RANDOM,
    RESULTS,
    SOFT,
    TEACHERS,
    TOKENS,
    WAYS,
    WORK,
    Run,
)
from camvid_tables import write_tables
from camvid_weights import keep

from tokenlabel.api.annotate import annotate
from tokenlabel.api.train import train
from tokenlabel.compare.plan import make_records

EVERY = 8  # one mask of so many is kept
STUDENT_OF_MASKS = WORK / "student-of-masks"
# it is shown crops of an eighth to a half of a scene
STUDENT: dict[str, Any] = {
    "recipe": "cifar10_lvvit", "image_size": 64, "epochs": 40, "batch_size": 16, "scale": "sqrt",
    "device_batch": 16, "mix": "none", "workers": 0, "cache": "ram",
    "settings": ["augment.scale=[0.1, 0.5]"],
}  # fmt: skip


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
    settings = (f"data.workers={loaders(options.workers)}", *options.set)
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
    # the best of all seeds that have a record, also those that are not of this call
    seeds = sorted({int(file.stem.rpartition("-")[2]) for file in RESULTS.glob("*.json")})
    for kept in ((FULL,), tuple(TEACHERS)):
        of_all = (run for arm in kept if arm in arms for run in runs_of(arm, seeds))
        keep([run for run in of_all if run.job.file.exists()])
    write_tables(tables)


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


if __name__ == "__main__":
    main()
