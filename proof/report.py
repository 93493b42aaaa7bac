"""`docs/proof.md`, its picture and the README's table from the records: `python proof/report.py`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pages import with_tables
from plan import LONG, LONGEST, SMALL_TABLES, best
from runs import (
    ANNOTATORS,
    ARMS,
    BASELINES,
    DISTILLED,
    OURS,
    RESULTS,
    SEEDS,
    STUDENTS,
    Images,
    Labels,
    Run,
    images,
)

from tokenlabel.compare import Comparison, Record
from tokenlabel.compare.comparison import markdown, plus_minus
from tokenlabel.compare.record import read_record

README = Path("README.md")
Records = dict[str, Record]
HEADLINES = (
    (LONGEST, "accurate"),
    (LONG, "strong"),
    (images("cifar10", 5000), "taught"),
    (images("cifar10", 1000), "taught"),
    (images("tinyimagenet100", 500), "finetuned"),
    (images("tinyimagenet100", 100), "finetuned"),
)
IN_README = (LONGEST, images("cifar10", 5000), images("tinyimagenet100", 100))


def main() -> None:
    records = read_records()
    draw(records, Path("docs/images/proof.png"))
    Path("docs/proof.md").write_text(page(records))
    README.write_text(with_summary(README.read_text(), records))


def read_records() -> Records:
    """The records of runs by their names."""
    files = sorted(RESULTS.glob("*.json"))
    return {
        file.stem: read_record(file)
        for file in files
        if file.stem != "scale" and not file.stem.startswith("annotator-")
    }


def page(records: Records) -> str:
    """The page: prose from `proof/text/`, numbers from the records."""
    parts = [prose("head")]
    found = [(of, by) for of, by in HEADLINES if any(r.startswith(of.name) for r in records)]
    if found:
        parts += [prose("setting"), scale(), *annotators()]
        for of, by in found:
            parts += [f"## {of.title}", *headline(records, of, by)]
        parts += [prose("found"), prose("cut-off"), *rules(records)]
        parts += ["## Learning curves", "![Accuracy by epoch](images/proof.png)"]
    for title, table in SMALL_TABLES.items():
        parts += small_table(records, title, table)
    if found:
        parts += [prose("weights"), "## Every run", every_run(records)]
    parts.append(prose("two-epochs"))
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def prose(name: str) -> str:
    file = Path("proof/text", f"{name}.md")
    return file.read_text() if file.exists() else ""


def scale() -> str:
    """Why the runs have the size they have."""
    file = RESULTS / "scale.json"
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    rates = ", ".join(
        f"{STUDENTS[s].split(',')[0]} {rate:.0f}" for s, rate in found["images_per_second"].items()
    )
    return (
        f"**Scale.** {found['said'][0].upper()}{found['said'][1:]} (training images per second,"
        f" with {found['workers']} runs in parallel: {rates})."
    )


# -- annotators ------------------------------------------------------------------------------------


def judged_labels(labels: Labels) -> dict[str, Any]:
    """What is known of a label store: its agreement with the truth, its annotators on unseen images."""
    from tokenlabel.api.labels import labels_health

    health = labels_health(labels=labels.store, data=labels.images.train, sample=2000)
    runs = sorted(Path(labels.annotator).rglob("results.json"))
    unseen = [json.loads(file.read_text())["measures"]["val/top1"] for file in runs]
    return {
        "agreement": health.means["agreement"],
        "true_class_cells": health.means["true_class_cells"],
        "held_out_top1": sum(unseen) / len(unseen) if unseen else None,
    }


def annotators() -> Iterable[str]:
    """Accuracy on unseen images beside agreement on those labeled: the gap is what was memorized."""
    rows = []
    for file in sorted(RESULTS.glob("annotator-*.json")):
        values = json.loads(file.read_text())
        data, per_class, by = file.stem.removeprefix("annotator-").split("-", 2)
        unseen, agreement = values["held_out_top1"], values["agreement"]
        rows.append(
            [
                f"{data}, {per_class} per class",
                ANNOTATORS[by].title,
                "-" if unseen is None else f"{100 * unseen:.1f}",
                f"{100 * agreement:.1f}",
                "-" if unseen is None else f"{100 * (agreement - unseen):+.1f}",
            ]
        )
    if not rows:
        return []
    head = [
        "images",
        "annotator",
        "top-1 on unseen images",
        "agreement on the images it labels",
        "gap",
    ]
    return ["## Annotators", markdown(head, rows)]


# -- the headline ----------------------------------------------------------------------------------


def of_student(records: Records, of: Images, student: str, by: str) -> Comparison:
    """The runs of a student that are done, by arm."""
    found = []
    for arm in ARMS:
        for seed in SEEDS:
            run = Run(of, student, arm, seed, by)
            if run.name in records:
                found.append(Record(arm, seed, records[run.name].score))
    return Comparison(tuple(ARMS), tuple(found))


def students(records: Records, of: Images) -> list[str]:
    return [s for s in STUDENTS if any(name.startswith(f"{of.name}-{s}-") for name in records)]


def chosen(records: Records, of: Images, student: str, by: str) -> tuple[str, str, str]:
    """The strongest baseline, the better distillation and the better of ours, by the first seed."""

    def score(run: Run) -> float | None:
        return records[run.name].score if run.name in records else None

    base, distilled, ours = (
        best(of, student, arms, by, score) for arms in (BASELINES, DISTILLED, OURS)
    )
    return base, distilled, ours


def headline(records: Records, of: Images, by: str) -> Iterable[str]:
    shown = students(records, of)
    rows = []
    for arm, options in ARMS.items():
        cells = [plus_minus(of_student(records, of, s, by).scores(arm)) for s in shown]
        if set(cells) != {"-"}:
            rows.append([options.title, *cells])
    yield (
        f"Top-1 of the class token in percent, mean ± standard deviation over seeds. Annotator:"
        f" {ANNOTATORS[by].title}."
    )
    yield markdown(["trained with", *(STUDENTS[s] for s in shown)], rows)
    yield from verdicts(records, of, by, shown)
    gains = []
    for student in shown:
        base, distilled, ours = chosen(records, of, student, by)
        for arm in (base, distilled):
            gap = of_student(records, of, student, by).difference(ours, arm)
            if gap is not None:
                seeds = ", ".join(f"{value:+.2f}" for value in gap.by_seed.values())
                gains.append(
                    [
                        STUDENTS[student],
                        ARMS[ours].title,
                        ARMS[arm].title,
                        f"{gap.mean:+.2f}",
                        seeds,
                        gap.p_text(),
                    ]
                )
    if gains:
        yield markdown(["student", "ours", "against", "difference", "by seed", "p"], gains)
    others = list(other_annotators(records, of, by, shown))
    if others:
        yield "With labels of other annotators:"
        yield markdown(["annotator", "trained with", *(STUDENTS[s] for s in shown)], others)
    short = list(shorter(records, of, by, shown))
    if short:
        yield (
            "Epochs until the final accuracy of ground truth is reached within the full schedule, and"
            " the accuracy after a schedule of a third of the epochs (first seed)."
        )
        head = ["student", "ground truth at the end", "reached in epoch", "a third of the epochs"]
        yield markdown(head, short)


def verdicts(records: Records, of: Images, by: str, shown: list[str]) -> Iterable[str]:
    """In one sentence each: where token labels are ahead of the strongest baseline, and where not."""
    ahead, behind = [], []
    for student in shown:
        base, _, ours = chosen(records, of, student, by)
        gap = of_student(records, of, student, by).difference(ours, base)
        if gap is None:
            continue
        said = f"{STUDENTS[student].split(',')[0]} ({gap.mean:+.1f})"
        (ahead if gap.mean > 0 else behind).append(said)
    if ahead:
        yield f"Token labels are ahead of the strongest baseline on {', '.join(ahead)}."
    if behind:
        yield f"**They do not help here:** {', '.join(behind)}."


def other_annotators(
    records: Records, of: Images, by: str, shown: list[str]
) -> Iterable[list[str]]:
    """Of each annotator but `by`: the arms that use its labels."""
    for other in (name for name in ANNOTATORS if name != by):
        found = [of_student(records, of, student, other) for student in shown]
        for arm in (*OURS, *DISTILLED):
            cells = [plus_minus(runs.scores(arm)) for runs in found]
            if set(cells) != {"-"}:
                yield [ANNOTATORS[other].title, ARMS[arm].title, *cells]


def shorter(records: Records, of: Images, by: str, shown: list[str]) -> Iterable[list[str]]:
    for student in shown:
        base, _, ours = chosen(records, of, student, by)
        truth = records.get(Run(of, student, base, SEEDS[0], by).name)
        whole = records.get(Run(of, student, ours, SEEDS[0], by).name)
        thirds = (Run(of, student, arm, SEEDS[0], by, parts=3) for arm in OURS)
        third = next((run for run in thirds if run.name in records), None)
        if truth is None or whole is None:
            continue
        curve = whole.details["curve"]
        reached = [epoch for epoch, top1 in curve if 100 * top1 >= truth.score]
        yield [
            STUDENTS[student],
            f"{truth.score:.2f}",
            f"{reached[0]} of {of.epochs}" if reached else "not reached",
            "-" if third is None else f"{records[third.name].score:.2f} ({third.title})",
        ]


def rules(records: Records) -> Iterable[str]:
    """How often the class token is ahead of the fused rule, and how often behind."""
    rows = []
    for of, _ in HEADLINES:
        gaps = []
        for name, record in records.items():
            known = record.details["accuracy"]
            if name.startswith(f"{of.name}-") and "fused" in known and "-part" not in name:
                gaps.append(round(100 * (known["class"] - known["fused"]), 2))
        ahead, behind = ([gap for gap in gaps if sign * gap > 0] for sign in (1, -1))
        if gaps:
            row = (len(gaps), len(ahead), len(behind))
            most = [f"{max(map(abs, each), default=0):.1f}" for each in (ahead, behind)]
            rows.append([of.title, *map(str, row), *most])
    if not rows:
        return []
    head = ["images", "runs with token labels", "class token ahead", "fused ahead",
            "class token ahead by up to", "fused ahead by up to"]  # fmt: skip
    return ["## Class token or fused", markdown(head, rows)]


# -- the rest --------------------------------------------------------------------------------------


def small_table(records: Records, title: str, runs: list[Run]) -> list[str]:
    """A table of `SMALL_TABLES`: one line for each arm and annotator, one column a student."""
    done = [run for run in runs if run.name in records]
    if not done:
        return []
    shown = list(dict.fromkeys(run.student for run in runs))
    lines: dict[tuple[str, ...], dict[str, dict[int, float]]] = {}
    for run in done:
        line = (
            run.images.title,
            run.title,
            ANNOTATORS[run.by].title if run.labels else "",
        )
        by_seed = lines.setdefault(line, {}).setdefault(run.student, {})
        by_seed[run.seed] = records[run.name].score
    rows = [
        [*line, *(plus_minus(cells.get(s, {})) for s in shown)] for line, cells in lines.items()
    ]
    head = ["images", "trained with", "annotator", *(STUDENTS[s] for s in shown)]
    return [f"## {title.replace('-', ' ').capitalize()}", prose(title), markdown(head, rows)]


def every_run(records: Records) -> str:
    rows = []
    for name, record in records.items():
        accuracy, used = record.details["accuracy"], record.details["processor_seconds"]
        other = [f"{100 * accuracy[r]:.2f}" if r in accuracy else "" for r in ("token", "fused")]
        cost = "-" if used is None else f"{used:.0f}"
        rows.append(
            [f"`{name}`", f"{record.score:.2f}", *other, cost, f"`{record.details['command']}`"]
        )
    head = ["run", "class token", "best token", "fused", "processor s", "command"]
    return markdown(head, rows)


def with_summary(text: str, records: Records) -> str:
    """The README's text with its table made anew; as it is while nothing is recorded."""
    rows = []
    for of, by in (one for one in HEADLINES if one[0] in IN_README):
        for student in students(records, of):
            arms = base, _, ours = chosen(records, of, student, by)
            found = of_student(records, of, student, by)
            gap = found.difference(ours, base)
            if gap is not None and not math.isnan(gap.mean):
                # the seeds of both, so that the columns subtract to the last one
                other = set(found.scores(base)) ^ set(found.scores(ours))
                shown = ({s: v for s, v in found.scores(a).items() if s not in other} for a in arms)
                cells = [plus_minus(scores) for scores in shown]
                rows.append([of.title, STUDENTS[student], *cells, f"{gap.mean:+.2f}"])
    if not rows:
        return text
    head = ["data", "student", "strongest baseline", "image-level distillation", "token labels",
            "difference"]  # fmt: skip
    return with_tables(text, "report.py", markdown(head, rows))


def draw(records: Records, file: Path) -> None:
    """Learning curves of the first seed: one picture a student and data set, one line an arm."""
    cells = [(of, by, s) for of, by in HEADLINES for s in students(records, of)]
    if not cells:
        return
    colors = [f"C{number}" for number in range(len(ARMS))]
    columns = min(len(cells), 4)
    rows = math.ceil(len(cells) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in places[len(cells) :]:
        axes.set_axis_off()
    for axes, (of, by, student) in zip(places, cells, strict=False):
        for color, arm in zip(colors, ARMS, strict=True):
            record = records.get(Run(of, student, arm, SEEDS[0], by).name)
            if record is not None:
                epochs, top1 = zip(*record.details["curve"], strict=True)
                axes.plot(epochs, [100 * value for value in top1], color=color, linewidth=1.2)
        axes.set_title(f"{STUDENTS[student].split(',')[0]}\n{of.title}", fontsize=7)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("top-1 of the class token on validation images, %", fontsize=9)
    lines = [Line2D([], [], color=color) for color in colors]
    titles = [arm.title for arm in ARMS.values()]
    figure.legend(lines, titles, loc="outside upper center", ncols=len(lines), frameon=False)
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
