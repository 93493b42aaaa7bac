"""`docs/proof.md`, its picture and the README's table from the records: `python proof/report.py`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from plan import (
    ABLATED,
    ABLATIONS,
    ANNOTATORS,
    ARMS,
    BASELINES,
    DISTILLED,
    HEADLINE,
    LONGER,
    OURS,
    RUNS,
    SEEDS,
    STUDENTS,
    Run,
)
from scipy.stats import ttest_rel

RESULTS = Path("proof/results")
README = Path("README.md")
MARKS = ("<!-- made by proof/report.py -->\n", "\n<!-- end -->")
Record = dict[str, Any]


def main() -> None:
    records = read_records()
    draw(records, Path("docs/images/proof.png"))
    Path("docs/proof.md").write_text(page(records))
    README.write_text(with_summary(README.read_text(), records))


def read_records() -> dict[str, Record]:
    """The records by the names of their runs and annotators."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))}


def page(records: dict[str, Record]) -> str:
    """The page: prose from `proof/text/`, numbers from the records."""
    parts = [
        prose("head"),
        annotators(records),
        prose("headline"),
        headline(records),
        "![Accuracy of every run](images/proof.png)",
        prose("found"),
        "## Each difference, seed by seed",
        differences(records),
        "## A longer schedule",
        prose("longer"),
        longer(records),
        "## What an epoch costs",
        costs(records),
        "## Ablations",
        prose("ablations"),
        ablations(records),
        "## Weights",
        prose("weights"),
        "## Every run",
        every_run(records),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def prose(name: str) -> str:
    return Path("proof/text", f"{name}.md").read_text()


def annotators(records: dict[str, Record]) -> str:
    rows = [
        [title.title, f"{100 * records[name]['top1']:.2f}"]
        for name, title in ANNOTATORS.items()
        if name in records
    ]
    return table(["annotator", "top-1 on the validation images"], rows)


def accuracy(record: Record) -> float:
    """Top-1 of the class token in percent: what every arm is judged by."""
    measures = record["measures"]
    return 100 * float(measures.get("val/class_top1", measures["val/top1"]))


def of(records: dict[str, Record], student: str, arm: str) -> dict[int, float]:
    """Accuracy by seed of the runs that are done."""
    runs = [run for run in HEADLINE if (run.student, run.arm) == (student, arm)]
    return {run.seed: accuracy(records[run.name]) for run in runs if run.name in records}


def strongest(records: dict[str, Record], student: str, arms: Iterable[str]) -> str:
    """The arm with the best mean over its seeds."""
    return max(arms, key=lambda arm: mean(of(records, student, arm).values()))


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return statistics.fmean(values) if values else float("-inf")


def spread(values: Iterable[float]) -> str:
    """Mean ± standard deviation."""
    values = list(values)
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{mean(values):.2f} ± {statistics.stdev(values):.2f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def headline(records: dict[str, Record]) -> str:
    rows = []
    for arm, options in ARMS.items():
        cells = []
        for student in STUDENTS:
            cell = spread(of(records, student, arm).values())
            best = strongest(records, student, ARMS) == arm
            cells.append(f"**{cell}**" if best else cell)
        rows.append([options.title, *cells])
    return table(["trained with", *STUDENTS.values()], rows)


def with_summary(text: str, records: dict[str, Record]) -> str:
    """The README's text with its table between `MARKS` made anew: the arms that all seeds ran."""
    start, end = text.index(MARKS[0]) + len(MARKS[0]), text.index(MARKS[1])
    return text[:start] + summary(records) + text[end:]


def summary(records: dict[str, Record]) -> str:
    """Accuracy of the headline arms, and how far ours is ahead of the others."""
    arms = [arm for arm, options in ARMS.items() if options.headline]
    rows = [
        [ARMS[arm].title, *(spread(of(records, student, arm).values()) for student in STUDENTS)]
        for arm in arms
    ]
    rows += [
        [f"ours against {ARMS[arm].title.removeprefix('+ ')}",
         *(paired(records, student, OURS, arm)[0] for student in STUDENTS)]
        for arm in arms if arm != OURS
    ]  # fmt: skip
    return table(["trained with", *STUDENTS.values()], rows)


def paired(records: dict[str, Record], student: str, arm: str, other: str) -> list[str]:
    ours, theirs = of(records, student, arm), of(records, student, other)
    seeds = sorted(ours.keys() & theirs.keys())
    gaps = [ours[seed] - theirs[seed] for seed in seeds]
    if not gaps:
        return ["-", "-", "-"]
    test = ttest_rel([ours[s] for s in seeds], [theirs[s] for s in seeds]) if gaps[1:] else None
    return [
        f"{mean(gaps):+.2f}",
        ", ".join(f"{gap:+.2f}" for gap in gaps),
        "-" if test is None else f"{test.pvalue:.3f}",
    ]


def differences(records: dict[str, Record]) -> str:
    rows = [
        [title, ARMS[rival].title, *paired(records, student, OURS, rival)]
        for student, title in STUDENTS.items()
        for rival in (strongest(records, student, BASELINES), *DISTILLED)
    ]
    head = ["student", "token labels + MixToken against", "mean", "by seed", "p, paired t-test"]
    return table(head, rows)


def longer(records: dict[str, Record]) -> str:
    """Each longer run beside the run of the headline with its seed."""
    arms = list(dict.fromkeys(run.arm for run in LONGER))
    rows = []
    for student in dict.fromkeys(run.student for run in LONGER):
        for runs in (HEADLINE, LONGER):
            chosen = [r for r in runs if r.student == student and r.seed == SEEDS[0]]
            by_arm = {r.arm: accuracy(records[r.name]) for r in chosen if r.name in records}
            cells = [f"{by_arm[arm]:.2f}" if arm in by_arm else "-" for arm in arms]
            rows.append([f"{STUDENTS[student]}, {chosen[0].epochs} epochs", *cells])
    return table(["", *(ARMS[arm].title for arm in arms)], rows)


def costs(records: dict[str, Record]) -> str:
    """Seconds an epoch, and what each arm costs relative to ground truth alone."""
    rows = []
    for arm, options in ARMS.items():
        cells = []
        for student in STUDENTS:
            base, mine = seconds(records, student, "labels"), seconds(records, student, arm)
            cells.append(f"{mine:.0f} s ({mine / base:.2f}x)" if mine and base else "-")
        rows.append([options.title, *cells])
    return table(["trained with", *STUDENTS.values()], rows)


def seconds(records: dict[str, Record], student: str, arm: str) -> float:
    runs = [r for r in HEADLINE if (r.student, r.arm) == (student, arm) and r.name in records]
    each = [records[run.name]["cpu_seconds"] / run.epochs for run in runs]
    return statistics.median(each) if each else 0.0


def ablations(records: dict[str, Record]) -> str:
    base = of(records, ABLATED, OURS)
    rows = [["as in the table above", spread(base.values()), "", "", ""]]
    if SEEDS[0] in base:
        first = next(r for r in HEADLINE if (r.student, r.arm, r.seed) == (ABLATED, OURS, SEEDS[0]))
        rows.append(["seed 0 of it", f"{base[SEEDS[0]]:.2f}", *heads(records, first), "0"])
    for run in ABLATIONS:
        if run.name in records:
            value = accuracy(records[run.name])
            rows.append(
                [str(run.ablation), f"{value:.2f}", *heads(records, run),
                 f"{value - base[SEEDS[0]]:+.2f}"]
            )  # fmt: skip
    return table(["changed", "class token", "best token", "fused", "difference"], rows)


def every_run(records: dict[str, Record]) -> str:
    rows = [
        [
            f"`{run.name}`",
            f"{accuracy(records[run.name]):.2f}",
            *heads(records, run),
            f"{records[run.name]['cpu_seconds']:.0f}",
            f"`{records[run.name]['command']}`",
        ]
        for run in RUNS
        if run.name in records
    ]
    missing = [run.name for run in RUNS if run.name not in records]
    note = f"\n\nPlanned but not run: {', '.join(missing)}." if missing else ""
    return table(["run", "class token", "best token", "fused", "CPU s", "command"], rows) + note


def heads(records: dict[str, Record], run: Run) -> list[str]:
    """Accuracy of the best token alone and of both fused, where tokens were taught."""
    measures = records[run.name]["measures"]
    if "val/token_top1" not in measures:
        return ["", ""]
    return [f"{100 * measures[rule]:.2f}" for rule in ("val/token_top1", "val/top1")]


def draw(records: dict[str, Record], file: Path) -> None:
    """Every run of the headline arms as a point, every arm's mean as a line."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    for axes, (student, title) in zip(
        figure.subplots(1, len(STUDENTS)), STUDENTS.items(), strict=True
    ):
        for place, arm in enumerate(ARMS):
            values = list(of(records, student, arm).values())
            color = "C1" if arm.startswith("tokens") else "C0" if arm in DISTILLED else "C7"
            axes.scatter(values, [place] * len(values), color=color, s=18, alpha=0.7)
            if values:
                axes.vlines(mean(values), place - 0.3, place + 0.3, color=color)
        axes.set(title=title, xlabel="top-1, %")
        axes.set_yticks(range(len(ARMS)), [options.title for options in ARMS.values()])
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        if axes is not figure.axes[0]:
            axes.set_yticklabels([])
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
