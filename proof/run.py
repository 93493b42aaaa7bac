"""The proof, from images to `docs/proof.md`; interrupted, the same command goes on.

    python proof/run.py --cifar10 FOLDER [--tinyimagenet100 FOLDER --annotator FILE] [--workers 2]
                        [--per-class N] [--budget 10h] [--table annotators]

A FOLDER holds train and val, each class folders or a tar of them; FILE are weights of EfficientNet-Lite0
from ImageNet. Every step is a command of the package (see `runs.py` and `plan.py`); what stands is not
made again. Finished runs leave a record in `proof/results/`, which is kept with the code. Without
`--per-class` the number of images is chosen by the rate that is measured first, so that the runs that
tell most fit into the budget; the choice and the rates stand in `proof/results/scale.json` and in the
report. Runs that would not end within the budget are left out, and said.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import report
from parts import unpacked
from plan import TABLES, stages
from runs import (
    ANNOTATORS,
    DATA,
    RESULTS,
    STUDENTS,
    WEIGHTS,
    WORK,
    Images,
    Labels,
    Run,
    images,
)

from tokenlabel.compare.budget import hours, measured_rates
from tokenlabel.compare.plan import Job, make_records
from tokenlabel.compare.record import Record, read_record
from tokenlabel.data.names import ordered

KEPT = Path("proof/weights")
SCALE = RESULTS / "scale.json"
FEW = {"cifar10": 1000, "tinyimagenet100": 100}  # images a class, where all are too many
FIRST = (("lvvit", 4), ("vit", 4), ("resnet", 4), ("swin", 0))  # students, runs that must fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", type=Path, required=True, help="folder with train and val")
    parser.add_argument("--tinyimagenet100", type=Path, help="the same of Tiny ImageNet's classes")
    parser.add_argument("--annotator", type=Path, help="pretrained weights of EfficientNet-Lite0")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--per-class", type=int, help="training images a class of CIFAR-10")
    parser.add_argument("--budget", default="15h", help="wall-clock time of the runs: 10h, 90m")
    parser.add_argument("--rate", type=float, help="images/s of a run, instead of measuring it")
    parser.add_argument("--table", choices=sorted(TABLES), help="one table instead")
    parser.add_argument("--weights", action="store_true", help="keep the best seeds' weights, too")
    parser.add_argument(
        "--match", default="", help="a regular expression: only runs whose name has it"
    )
    options = parser.parse_args()
    unpack(options.cifar10, "cifar10")
    tiny = None
    if options.tinyimagenet100:
        if options.annotator is None:
            sys.exit("--tinyimagenet100 needs --annotator, weights of EfficientNet-Lite0")
        unpack(options.tinyimagenet100, "tinyimagenet100")
        link(options.annotator, Path(WEIGHTS))
        tiny = images("tinyimagenet100", FEW["tinyimagenet100"])
    ends = time.monotonic() + 3600 * hours(options.budget)
    rates = dict.fromkeys(STUDENTS, options.rate) if options.rate else measured(options.workers)
    cifar = images("cifar10", options.per_class or affordable(rates, options))
    plan = [TABLES[options.table]] if options.table else stages(cifar, tiny, score)
    for stage in plan:
        wanted = [
            run
            for run in stage
            if re.search(options.match, run.name) and begins(run) and not recorded(run)
        ]
        make(wanted, rates, ends, options.workers)
    report.main()
    if options.weights:
        # the baselines of all students would be more than 16 MiB
        keep_weights(cifar, "taught", STUDENTS, baselines=("lvvit", "vit"))
        if tiny is not None:
            keep_weights(tiny, "finetuned", ("lvvit",))


# -- how much there is time for --------------------------------------------------------------------


def measured(workers: int) -> dict[str, float]:
    """Images a second of each student, `workers` of them at a time."""
    if SCALE.exists():
        rates: dict[str, float] = json.loads(SCALE.read_text())["images_per_second"]
        return rates
    few = images("cifar10", FEW["cifar10"])
    subset(few)
    choices = {s: Run(few, s, "labels", 0).choices(few.epochs) for s, _ in FIRST}
    found = measured_rates(choices, Path(WORK, "rates"), workers)
    return {student: rate.images_per_second for student, rate in found.items()}


def affordable(rates: dict[str, float], options: argparse.Namespace) -> int:
    """Images a class: all, if the runs that tell most then fit into the budget, else few."""
    if SCALE.exists():
        return int(json.loads(SCALE.read_text())["cifar10_per_class"])
    whole = images("cifar10", DATA["cifar10"].per_class)
    needed = sum(n * Run(whole, s, "labels", 0).passes / rates[s] for s, n in FIRST) / 3600
    given = hours(options.budget) * options.workers
    per_class = whole.per_class if needed <= given else FEW["cifar10"]
    said = (
        f"two arms with and without mixing of three students on all {whole.count:,} images need"
        f" {needed:.1f} core-hours at the measured rates, and {given:.1f} are given: runs on"
        f" {per_class * 10:,} images"
    )
    print(said, flush=True)
    scale = {
        "said": said,
        "cifar10_per_class": per_class,
        "images_per_second": rates,
        "workers": options.workers,
        "budget": options.budget,
    }
    RESULTS.mkdir(exist_ok=True)
    SCALE.write_text(json.dumps(scale, indent=2) + "\n")
    return per_class


def fitting(runs: Sequence[Run], rates: dict[str, float], ends: float, workers: int) -> list[Run]:
    """The runs that end in time, so many at once in this order; what does not is left out, and said."""
    free, chosen = [time.monotonic()] * workers, []
    for run in runs:
        done = min(free) + run.passes / rates[run.student]
        if done <= ends:
            free[free.index(min(free))] = done
            chosen.append(run)
        else:
            print(f"{run.name}: not run, it would end {done - ends:.0f} s too late", flush=True)
    return chosen


# -- the steps -------------------------------------------------------------------------------------


def make(runs: Sequence[Run], rates: dict[str, float], ends: float, workers: int) -> None:
    """The runs that need no labels, while labels are made; then the others."""
    for run in runs:
        subset(run.images)
    stores = list(dict.fromkeys(run.labels for run in runs if run.labels is not None))
    with ThreadPoolExecutor(max(1, workers // 4)) as makers:
        made = [makers.submit(make_labels, labels, 1) for labels in stores]
        train([run for run in runs if run.labels is None], rates, ends, workers)
        for labels in made:
            labels.result()
    train([run for run in runs if run.labels is not None], rates, ends, workers)


def train(runs: Sequence[Run], rates: dict[str, float], ends: float, workers: int) -> None:
    chosen = fitting(runs, rates, ends, workers)
    jobs = [Job(r.name, r.seed, RESULTS / f"{r.name}.json", r.training) for r in chosen]
    make_records(jobs, workers, said)


def said(record: Record) -> None:
    print(f"{record.arm}: top-1 {record.score:.2f} % after {record.seconds / 60:.0f} minutes")
    sys.stdout.flush()


def unpack(given: Path, data: str) -> None:
    """Class folders of both parts, in the working folder."""
    for part in ("train", "val"):
        unpacked(given, part, Path(WORK, data, part))


def link(file: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    target.symlink_to(file.resolve(strict=True))


def subset(of: Images) -> None:
    """The list of its training images: of each class the first ones by name."""
    target = Path(of.train)
    if target.exists():
        return
    folder = target.parent / "train"
    rows = [
        (f"train/{kind}/{name}", kind)
        for kind in names(folder)
        for name in names(folder / kind)[: of.per_class]
    ]
    if len(rows) != of.count:
        sys.exit(f"{folder} holds {len(rows)} of {of.count} images: is it another data set?")
    draft = target.with_suffix(".draft")
    with draft.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    draft.rename(target)


def names(folder: Path) -> list[str]:
    return ordered(path.name for path in folder.iterdir())


def make_labels(labels: Labels, threads: int) -> None:
    """The store, and the annotator that it needs; both verbs know what is done."""
    done = RESULTS / f"annotator-{labels.name}.json"
    if done.exists() and Path(labels.store, "manifest.json").exists():
        return
    commands = [labels.annotate()]
    if not labels.as_it_is:
        commands.insert(0, ANNOTATORS[labels.by].teach(labels.images, labels.annotator))
    used = [tokenlabel(words, labels.name, threads) for words in commands]
    tokenlabel(["labels", "verify", "--labels", labels.store], labels.name, threads)
    values = {
        "commands": [" ".join(["tokenlabel", *words]) for words in commands],
        "processor_seconds": [round(seconds, 1) for seconds in used],
        **report.judged_labels(labels),
    }
    RESULTS.mkdir(exist_ok=True)
    done.write_text(json.dumps(values, indent=2) + "\n")


def keep_weights(
    of: Images, by: str, wanted: Collection[str], baselines: Collection[str] = ()
) -> None:
    """The best seed of token labels of the students `wanted`, and of the strongest baseline of
    `baselines`, as timm folders with cards."""
    records = report.read_records()
    for student in (s for s in report.students(records, of) if s in wanted):
        base, _, ours = report.chosen(records, of, student, by)
        for arm in (base, ours) if student in baselines else (ours,):
            by_seed = report.of_student(records, of, student, by).scores(arm)
            if not by_seed:
                continue
            run = Run(of, student, arm, max(by_seed, key=by_seed.__getitem__), by)
            target = KEPT / run.name
            if target.exists():
                continue
            checkpoint = ["--checkpoint", str(run.training.folder)]
            tokenlabel(["eval", "--data", of.val, "--workers", "0", *checkpoint], run.name, 1)
            export = ["export", *checkpoint, "--output", str(target), "--dtype", "bfloat16"]
            tokenlabel([*export, "--form", "timm"], run.name, 1)
            seeds = KEPT.glob(f"{run.name.removesuffix(str(run.seed))}[0-9]")
            for worse in (folder for folder in seeds if folder != target):
                shutil.rmtree(worse)


def tokenlabel(arguments: Sequence[str], name: str, threads: int) -> float:
    """One command of the package, its output in a log of its own; returns its processor seconds."""
    log = Path(WORK, "logs", f"{name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tokenlabel", *arguments],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"tokenlabel {' '.join(arguments)} failed:\n{log.read_text()[-2000:]}")
    return used.ru_utime + used.ru_stime


# -- records ---------------------------------------------------------------------------------------


def recorded(run: Run) -> bool:
    """Whether the run is done. A record made by another command is no result of the plan."""
    file = RESULTS / f"{run.name}.json"
    if file.exists() and read_record(file).details["command"] != run.training.command:
        sys.exit(f"{file} was made by another command: remove it and {run.training.folder}")
    return file.exists()


def begins(run: Run) -> bool:
    """Whether the student that it starts from is there."""
    return run.start is None or (recorded(run.start) and run.start.training.folder.exists())


def score(run: Run) -> float | None:
    file = RESULTS / f"{run.name}.json"
    return read_record(file).score if file.exists() else None


if __name__ == "__main__":
    main()
