"""`report.html`: what was measured, in one file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenlabel.labels import LabelMap
from tokenlabel.pictures.overlay import draw_label_map, draw_legend

__all__ = ["ArmResult", "Example", "Summary", "summarize", "write_report"]


@dataclass(frozen=True)
class ArmResult:
    """One training run: accuracies in [0, 1] on held-out scenes by each prediction rule."""

    arm: str
    seed: int
    accuracy: dict[str, float]  # class | token | fused
    headline: str  # the rule that the arm is judged by, fixed before training
    curve: list[float]  # accuracy on held-out scenes after each epoch
    seconds: float


@dataclass(frozen=True)
class Summary:
    """An arm's headline accuracy over its seeds, in percent; spread is the standard deviation."""

    arm: str
    mean: float
    spread: float
    seeds: int
    versus_labels: float  # mean of the paired differences to "labels only", in points
    seconds: float


@dataclass(frozen=True)
class Example:
    """A scene with its label map and its known mask."""

    image: NDArray[np.uint8]
    label_map: LabelMap
    mask: NDArray[np.uint8]
    title: str


def summarize(results: Sequence[ArmResult], baseline: str) -> list[Summary]:
    """One line an arm, in order of first appearance."""
    by_arm: dict[str, list[ArmResult]] = {}
    for result in results:
        by_arm.setdefault(result.arm, []).append(result)
    reference = {r.seed: 100 * r.accuracy[r.headline] for r in by_arm[baseline]}
    lines = []
    for arm, runs in by_arm.items():
        values = [100 * r.accuracy[r.headline] for r in runs]
        lines.append(
            Summary(
                arm=arm,
                mean=statistics.fmean(values),
                spread=statistics.stdev(values) if len(values) > 1 else float("nan"),
                seeds=len(values),
                versus_labels=statistics.fmean(
                    value - reference[r.seed] for value, r in zip(values, runs, strict=True)
                ),
                seconds=statistics.fmean(r.seconds for r in runs),
            )
        )
    return lines


def write_report(
    path: Path,
    summaries: Sequence[Summary],
    results: Sequence[ArmResult],
    examples: Sequence[Example],
    facts: dict[str, str],
) -> None:
    """Write the page; `facts` are name and value of everything else that was measured or set."""
    rows = "".join(
        f"<tr><td>{html.escape(s.arm)}<td>{s.mean:.1f}{_spread(s)}<td>{s.versus_labels:+.1f}"
        f"<td>{s.seconds:.0f} s"
        for s in summaries
    )
    runs = "".join(
        f"<tr><td>{html.escape(r.arm)}<td>{r.seed}"
        + "".join(f"<td>{_rule(r, rule)}" for rule in ("class", "token", "fused"))
        + f"<td>{r.headline}<td>{r.seconds:.0f} s"
        for r in results
    )
    known = "".join(f"<tr><td>{html.escape(k)}<td>{html.escape(v)}" for k, v in facts.items())
    page = _PAGE.format(
        verdict=html.escape(verdict(summaries)),
        rows=rows,
        curves=_embedded(_curves(results)),
        maps=_embedded(_maps(examples)),
        runs=runs,
        facts=known,
    )
    path.write_text(page, encoding="utf-8")


def verdict(summaries: Sequence[Summary]) -> str:
    """What the numbers say, whichever way they fall."""
    *others, ours = summaries
    best = max(others, key=lambda s: s.mean)
    gap = ours.mean - best.mean
    if ours.seeds < 2:
        note = "One seed: differences of a point or two may be chance."
    else:
        pooled = (ours.spread**2 / ours.seeds + best.spread**2 / best.seeds) ** 0.5
        note = f"The difference's standard error is {pooled:.1f} points over {ours.seeds} seeds."
    word = "ahead of" if gap > 0 else "behind" if gap < 0 else "level with"
    return f"Token labels are {abs(gap):.1f} points {word} the best other arm, {best.arm}. {note}"


def _rule(result: ArmResult, rule: str) -> str:
    return f"{100 * result.accuracy[rule]:.1f}" if rule in result.accuracy else "untrained"


def _spread(summary: Summary) -> str:
    return "" if summary.seeds < 2 else f" ± {summary.spread:.1f}"


def _curves(results: Sequence[ArmResult]) -> Any:
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    arms = list(dict.fromkeys(r.arm for r in results))
    for number, arm in enumerate(arms):
        curves = np.array([r.curve for r in results if r.arm == arm]) * 100
        epochs = np.arange(1, curves.shape[1] + 1)
        for curve in curves:
            axes.plot(epochs, curve, color=f"C{number}", alpha=0.25, linewidth=1)
        axes.plot(epochs, curves.mean(0), color=f"C{number}", linewidth=2, label=arm)
    axes.set(xlabel="epoch", ylabel="accuracy on held-out scenes, %")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _maps(examples: Sequence[Example]) -> Any:
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(1.4 * len(examples), 4.9))
    grid = figure.subplots(3, len(examples), squeeze=False)
    names = [str(digit) for digit in range(10)]
    for column, example in zip(grid.T, examples, strict=True):
        size = example.image.shape[0]
        column[0].imshow(example.image, extent=(0, size, size, 0))
        column[0].set_title(example.title, fontsize=9)
        draw_label_map(column[1], example.image, example.label_map)
        _draw_mask(column[2], example)
        for axes in column:
            axes.set(xticks=[], yticks=[])
    for axes, title in zip(grid[:, 0], ("image", "label map", "truth"), strict=True):
        axes.set_ylabel(title, fontsize=9)
    draw_legend(figure, names, range(10))
    figure.subplots_adjust(left=0.05, right=0.99, top=0.94, bottom=0.1, wspace=0.06, hspace=0.06)
    return figure


def _draw_mask(axes: Any, example: Example) -> None:
    from tokenlabel.pictures.overlay import class_colors

    picture = np.zeros((*example.mask.shape, 3))
    shown = example.mask < 10
    picture[shown] = class_colors(10)[example.mask[shown]]
    axes.imshow(picture, interpolation="nearest")


def _embedded(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>tokenlabel quickstart</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
td, th {{ padding: .3rem 1rem .3rem 0; text-align: left; border-bottom: 1px solid #ddd }}
img {{ max-width: 100% }} .verdict {{ font-size: 1.15rem; font-weight: 600 }}
details {{ margin: 1rem 0 }}
</style></head><body>
<h1>Token labels on handwritten digits</h1>
<p>Scenes composed of real scans: the image's label is the largest digit, smaller digits and clutter
stand beside it. One annotator labelled every region of every training scene once; then the same
small LV-ViT was trained from scratch in three ways, with one budget, one augmentation and one
optimiser. Accuracy is on held-out scenes made of held-out scans.</p>
<p class="verdict">{verdict}</p>
<table><tr><th>training<th>accuracy, %<th>against labels only<th>time a run{rows}</table>
<h2>Learning curves</h2><img alt="learning curves" src="{curves}">
<h2>What the annotator sees</h2>
<p>Above the scene, in the middle the annotator's best class of each cell (as opaque as it is
probable), below the digits that are really there. The students never see the last row.</p>
<img alt="label maps" src="{maps}">
<h2>Every run</h2>
<p>Accuracy in % by the class token alone, by the best token alone, and by both fused (class logits
+ 0.5 x best token's). An arm is judged by the rule named beside it, fixed before training.</p>
<table><tr><th>training<th>seed<th>class<th>token<th>fused<th>judged by<th>time{runs}</table>
<details open><summary>Settings and measurements</summary><table>{facts}</table></details>
</body></html>
"""
