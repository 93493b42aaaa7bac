"""`docs/proof.md`, its picture and the README's table from the records: `python proof/report.py`."""

from __future__ import annotations

import json
import statistics
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

from tokenlabel.compare import Comparison, Record
from tokenlabel.compare.comparison import markdown, plus_minus

RESULTS = Path("proof/results")
README = Path("README.md")
MARKS = ("<!-- made by proof/report.py -->\n", "\n<!-- end -->")
Values = dict[str, Any]


def main() -> None:
    records = read_records()
    draw(records, Path("docs/images/proof.png"))
    Path("docs/proof.md").write_text(page(records))
    README.write_text(with_summary(README.read_text(), records))


def read_records() -> dict[str, Values]:
    """The records by the names of their runs and annotators."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))}


def page(records: dict[str, Values]) -> str:
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


def annotators(records: dict[str, Values]) -> str:
    rows = [
        [title.title, f"{100 * records[name]['top1']:.2f}"]
        for name, title in ANNOTATORS.items()
        if name in records
    ]
    return markdown(["annotator", "top-1 on the validation images"], rows)


def accuracy(record: Values) -> float:
    """Top-1 of the class token in percent: what every arm is judged by."""
    measures = record["measures"]
    return 100 * float(measures.get("val/class_top1", measures["val/top1"]))


def of(records: dict[str, Values], student: str) -> Comparison:
    """The headline runs of a student that are done."""
    runs = [run for run in HEADLINE if run.student == student and run.name in records]
    found = [Record(run.arm, run.seed, accuracy(records[run.name])) for run in runs]
    return Comparison(tuple(ARMS), tuple(found))


def headline(records: dict[str, Values]) -> str:
    rows = []
    for arm, options in ARMS.items():
        cells = []
        for student in STUDENTS:
            found = of(records, student)
            cell = plus_minus(found.scores(arm))
            best = found.strongest(ARMS) == arm
            cells.append(f"**{cell}**" if best else cell)
        rows.append([options.title, *cells])
    return markdown(["trained with", *STUDENTS.values()], rows)


def with_summary(text: str, records: dict[str, Values]) -> str:
    """The README's text with its table between `MARKS` made anew: the arms that all seeds ran."""
    start, end = text.index(MARKS[0]) + len(MARKS[0]), text.index(MARKS[1])
    return text[:start] + summary(records) + text[end:]


def summary(records: dict[str, Values]) -> str:
    """Accuracy of the headline arms, and how far ours is ahead of the others."""
    arms = [arm for arm, options in ARMS.items() if options.headline]
    rows = [
        [ARMS[arm].title, *(plus_minus(of(records, student).scores(arm)) for student in STUDENTS)]
        for arm in arms
    ]
    rows += [
        [f"ours against {ARMS[arm].title.removeprefix('+ ')}",
         *(paired(records, student, OURS, arm)[0] for student in STUDENTS)]
        for arm in arms if arm != OURS
    ]  # fmt: skip
    return markdown(["trained with", *STUDENTS.values()], rows)


def paired(records: dict[str, Values], student: str, arm: str, other: str) -> list[str]:
    gap = of(records, student).difference(arm, other)
    if gap is None:
        return ["-", "-", "-"]
    by_seed = ", ".join(f"{value:+.2f}" for value in gap.by_seed.values())
    return [f"{gap.mean:+.2f}", by_seed, "-" if gap.p is None else f"{gap.p:.3f}"]


def differences(records: dict[str, Values]) -> str:
    rows = [
        [title, ARMS[rival].title, *paired(records, student, OURS, rival)]
        for student, title in STUDENTS.items()
        for rival in (of(records, student).strongest(BASELINES), *DISTILLED)
    ]
    head = ["student", "token labels + MixToken against", "mean", "by seed", "p, paired t-test"]
    return markdown(head, rows)


def longer(records: dict[str, Values]) -> str:
    """Each longer run beside the run of the headline with its seed."""
    arms = list(dict.fromkeys(run.arm for run in LONGER))
    rows = []
    for student in dict.fromkeys(run.student for run in LONGER):
        for runs in (HEADLINE, LONGER):
            chosen = [r for r in runs if r.student == student and r.seed == SEEDS[0]]
            by_arm = {r.arm: accuracy(records[r.name]) for r in chosen if r.name in records}
            cells = [f"{by_arm[arm]:.2f}" if arm in by_arm else "-" for arm in arms]
            rows.append([f"{STUDENTS[student]}, {chosen[0].epochs} epochs", *cells])
    return markdown(["", *(ARMS[arm].title for arm in arms)], rows)


def costs(records: dict[str, Values]) -> str:
    """Seconds an epoch, and what each arm costs relative to ground truth alone."""
    rows = []
    for arm, options in ARMS.items():
        cells = []
        for student in STUDENTS:
            base, mine = seconds(records, student, "labels"), seconds(records, student, arm)
            cells.append(f"{mine:.0f} s ({mine / base:.2f}x)" if mine and base else "-")
        rows.append([options.title, *cells])
    return markdown(["trained with", *STUDENTS.values()], rows)


def seconds(records: dict[str, Values], student: str, arm: str) -> float:
    runs = [r for r in HEADLINE if (r.student, r.arm) == (student, arm) and r.name in records]
    each = [records[run.name]["cpu_seconds"] / run.epochs for run in runs]
    return statistics.median(each) if each else 0.0


def ablations(records: dict[str, Values]) -> str:
    base = of(records, ABLATED).scores(OURS)
    rows = [["as in the table above", plus_minus(base), "", "", ""]]
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
    return markdown(["changed", "class token", "best token", "fused", "difference"], rows)


def every_run(records: dict[str, Values]) -> str:
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
    return markdown(["run", "class token", "best token", "fused", "CPU s", "command"], rows) + note


def heads(records: dict[str, Values], run: Run) -> list[str]:
    """Accuracy of the best token alone and of both fused, where tokens were taught."""
    measures = records[run.name]["measures"]
    if "val/token_top1" not in measures:
        return ["", ""]
    return [f"{100 * measures[rule]:.2f}" for rule in ("val/token_top1", "val/top1")]


def draw(records: dict[str, Values], file: Path) -> None:
    """Every run of the headline arms as a point, every arm's mean as a line."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    for axes, (student, title) in zip(
        figure.subplots(1, len(STUDENTS)), STUDENTS.items(), strict=True
    ):
        for place, arm in enumerate(ARMS):
            values = list(of(records, student).scores(arm).values())
            color = "C1" if arm.startswith("tokens") else "C0" if arm in DISTILLED else "C7"
            axes.scatter(values, [place] * len(values), color=color, s=18, alpha=0.7)
            if values:
                axes.vlines(statistics.fmean(values), place - 0.3, place + 0.3, color=color)
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
