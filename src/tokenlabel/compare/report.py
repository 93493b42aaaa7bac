"""What every report of a comparison shows: the table of its arms, the learning curves, the runs."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenlabel.compare.comparison import Comparison, plus_minus
from tokenlabel.compare.record import Record
from tokenlabel.files import write_atomically
from tokenlabel.pictures.page import figure_png, image_tag, page, table
from tokenlabel.supervision import RULES

__all__ = ["arms_table", "curves", "facts_table", "runs_table", "write_report"]


def write_report(path: Path, found: Comparison, facts: Mapping[str, str]) -> None:
    """`report.html`: one page that needs nothing else."""
    content = page(
        "Do token labels help on these images?",
        f"<p class=verdict>{html.escape(found.decision())}</p>",
        arms_table(found),
        "<h2>Learning curves</h2>",
        curves(found),
        "<h2>Every run</h2>",
        runs_table(found),
        facts_table(facts),
    )
    write_atomically(path, content)


def arms_table(found: Comparison) -> str:
    lines = []
    for line in found.lines():
        versus = line.versus
        lines.append(
            (
                line.arm,
                plus_minus(found.scores(line.arm), 1),
                str(line.seeds),
                f"{versus.mean:+.1f}" if versus else "-",
                versus.interval_text() if versus else "-",
                versus.p_text() if versus else "-",
                f"{line.seconds:.0f} s",
                "-" if line.processor_seconds is None else f"{line.processor_seconds:.0f} s",
            )
        )
    head = (
        "training", "accuracy, %", "seeds", f"against {found.arms[0]}", "95 % interval", "p",
        "time a run", "processor time a run",
    )  # fmt: skip
    return table(head, lines)


def curves(found: Comparison) -> str:
    """Accuracy by epoch: every run thin, the mean of each arm thick."""
    import matplotlib.figure
    import numpy as np

    figure = matplotlib.figure.Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, arm in enumerate(found.arms):
        each = [_curve(record) for record in found.records if record.arm == arm]
        for curve in each:
            axes.plot(*curve, color=f"C{number}", alpha=0.25, linewidth=1)
        if each:
            mean = np.mean([values for _, values in each], axis=0)
            axes.plot(each[0][0], mean, color=f"C{number}", linewidth=2, label=arm)
    axes.set(xlabel="epoch", ylabel="accuracy on held-out images, %")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return image_tag(figure_png(figure, 130), "learning curves")


def runs_table(found: Comparison) -> str:
    """Accuracy of each run by each rule of prediction that its student has."""
    rows = [
        (
            record.arm,
            str(record.seed),
            *(_percent(record.details["accuracy"].get(rule)) for rule in RULES),
            record.details["judged_by"],
            f"{record.seconds:.0f} s",
        )
        for record in found.records
    ]
    return table(("training", "seed", *RULES, "judged by", "time"), rows)


def facts_table(facts: Mapping[str, str]) -> str:
    return "\n".join(
        (
            "<details open><summary>Settings and measurements</summary>",
            table(("what", "value"), list(facts.items())),
            "</details>",
        )
    )


def _curve(record: Record) -> tuple[list[int], list[float]]:
    points: list[list[Any]] = record.details["curve"]
    return [epoch for epoch, _ in points], [100 * accuracy for _, accuracy in points]


def _percent(accuracy: float | None) -> str:
    return "untrained" if accuracy is None else f"{100 * accuracy:.1f}"
