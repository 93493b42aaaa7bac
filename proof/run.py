"""The proof, from images to `docs/proof.md`; interrupted, the same command goes on.

    python proof/run.py --data CIFAR10 [--jobs 2]

CIFAR10 is a folder with train and val, each class folders or a tar of them. Every step is a command
of the package (see `plan.py`); what stands is not made again. Finished runs leave a record in
`proof/results/`, which is kept with the code.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import report
from plan import ANNOTATORS, BASELINES, IMAGES, LABELS, OURS, RUNS, STUDENTS, WORK, Run, folder
from report import RESULTS

WEIGHTS = Path("proof/weights")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder with train and val")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--match", default="", help="only runs whose name contains this")
    options = parser.parse_args()
    unpack(options.data)
    wanted = [run for run in RUNS if options.match in run.name]
    missing = [run for run in wanted if not recorded(run)]
    with ThreadPoolExecutor(options.jobs) as pool:
        # by label store, in the order of the plan: a store may need a run that comes before it
        for store in dict.fromkeys(run.labels for run in missing):
            make_labels(store, options.jobs)
            list(pool.map(train, [run for run in missing if run.labels == store]))
    if wanted == RUNS:
        keep_weights()
        report.main()


def unpack(data: Path) -> None:
    """Class folders of both parts, in the working folder."""
    for part in ("train", "val"):
        target = Path(IMAGES) / part
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        found = sorted(data.glob(f"{part}*"))
        if not found:
            sys.exit(f"{data} has no {part}: it must hold train and val, folders or tars of them")
        if found[0].is_dir():
            target.symlink_to(found[0].resolve())
            continue
        draft = target.with_name(f".{part}")
        with tarfile.open(found[0]) as archive:
            archive.extractall(draft, filter="data")
        (draft / part).rename(target)


def make_labels(store: str, threads: int) -> None:
    """The store, and the annotator that it needs; `annotate` itself knows what is done."""
    by = LABELS[store].by
    if by in ANNOTATORS:
        teach(by, threads)
    tokenlabel(LABELS[store].annotate(f"{WORK}/{store}"), store, threads)


def teach(annotator: str, threads: int) -> None:
    """The annotator, and its record."""
    place = f"{WORK}/{annotator}"
    if not Path(place).exists():
        tokenlabel(ANNOTATORS[annotator].teach(place), annotator, threads)
    if not (RESULTS / f"{annotator}.json").exists():
        judge = ["eval", "--data", f"{IMAGES}/val", "--checkpoint", place, "--workers", "0"]
        tokenlabel([*judge, "--output", f"{place}-evaluation"], annotator)
        judged = json.loads(Path(f"{place}-evaluation", "results.json").read_text())
        command = spelled(ANNOTATORS[annotator].teach(place))
        record(annotator, {"command": command, "top1": judged["rules"]["class"]["top1"]})


def train(run: Run) -> None:
    """Train, and leave a record."""
    processor = tokenlabel(run.command, run.name)
    done = json.loads(Path(folder(run.name), "results.json").read_text())
    values = {
        "command": spelled(run.command),
        "measures": done["measures"],
        "updates": done["updates"],
        "cpu_seconds": round(processor, 1),
    }
    record(run.name, values)
    print(f"{run.name}: top-1 {report.accuracy(values):.2f} %", flush=True)


def keep_weights() -> None:
    """Of every student the strongest baseline's best seed and ours, as timm folders with cards."""
    records = report.read_records()
    for student in STUDENTS:
        found = report.of(records, student)
        for arm in (found.strongest(BASELINES), OURS):
            by_seed = found.scores(arm)
            name = f"{student}-{arm}-{max(by_seed, key=by_seed.__getitem__)}"
            target = WEIGHTS / name
            if target.exists():
                continue
            run = ["--checkpoint", folder(name)]
            tokenlabel(["eval", "--data", f"{IMAGES}/val", "--workers", "0", *run], name)
            export = ["export", *run, "--output", str(target), "--dtype", "bfloat16"]
            tokenlabel([*export, "--form", "timm"], name)


def tokenlabel(arguments: Sequence[str], name: str, threads: int = 1) -> float:
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
        sys.exit(f"{spelled(arguments)} failed:\n{log.read_text()[-2000:]}")
    return used.ru_utime + used.ru_stime


def recorded(run: Run) -> bool:
    """Whether the run is done. A record made by another command is no result of the plan."""
    file = RESULTS / f"{run.name}.json"
    if file.exists() and json.loads(file.read_text())["command"] != spelled(run.command):
        sys.exit(f"{file} was made by another command: remove it and {folder(run.name)}")
    return file.exists()


def record(name: str, values: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n")


def spelled(arguments: Sequence[str]) -> str:
    return " ".join(["tokenlabel", *arguments])


if __name__ == "__main__":
    main()
