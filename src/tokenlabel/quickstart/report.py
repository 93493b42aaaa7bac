"""`report.html`: what was measured, in one file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenlabel.compare import Comparison
from tokenlabel.compare.report import arms_table, curves, facts_table, runs_table
from tokenlabel.files import write_atomically
from tokenlabel.labels import LabelMap
from tokenlabel.pictures.colors import class_colors, visible_classes
from tokenlabel.pictures.overlay import draw_label_map, draw_legend
from tokenlabel.pictures.page import figure_png, image_tag, page

__all__ = ["Example", "write_report"]


@dataclass(frozen=True)
class Example:
    """A scene with its label map and its known mask."""

    image: NDArray[np.uint8]
    label_map: LabelMap
    mask: NDArray[np.uint8]
    title: str


def write_report(
    path: Path,
    found: Comparison,
    examples: Sequence[Example],
    facts: dict[str, str],
    photographs: Path | None = None,
) -> None:
    """Write the page; `facts` are name and value of everything else that was measured or set.

    `photographs` is a picture (PNG) of photographs with their label maps.
    """
    shown = []
    if photographs is not None:
        tag = image_tag(photographs.read_bytes(), "photographs and their label maps")
        shown = ["<h2>Label maps of photographs</h2>", _PHOTOGRAPHS, tag]
    content = page(
        "Token labels on handwritten digits",
        _INTRODUCTION,
        f"<p class=verdict>{html.escape(found.decision())}</p>",
        arms_table(found),
        "<h2>Learning curves</h2>",
        curves(found),
        "<h2>What the annotator sees</h2>",
        _MAPS,
        image_tag(figure_png(_maps(examples), 130), "label maps"),
        "<h2>Every run</h2>",
        _RULES,
        runs_table(found),
        *shown,
        facts_table(facts),
    )
    write_atomically(path, content)


def _maps(examples: Sequence[Example]) -> Any:
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(1.4 * len(examples), 4.9))
    grid = figure.subplots(3, len(examples), squeeze=False)
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
    named = {c for e in examples for c in visible_classes([e.label_map])}
    there = {int(digit) for e in examples for digit in np.unique(e.mask[e.mask < 10])}
    draw_legend(figure, [str(digit) for digit in range(10)], sorted(named | there))
    figure.subplots_adjust(left=0.05, right=0.99, top=0.94, bottom=0.1, wspace=0.06, hspace=0.06)
    return figure


def _draw_mask(axes: Any, example: Example) -> None:
    picture = np.zeros((*example.mask.shape, 3))
    shown = example.mask < 10
    picture[shown] = class_colors(10)[example.mask[shown]]
    axes.imshow(picture, interpolation="nearest")


_INTRODUCTION = """<p>Scenes composed of real scans: the image's label is the largest digit; smaller
digits and clutter stand beside it. One annotator labeled every region of every training scene once; then
the same small LV-ViT was trained from scratch in three ways, with one budget, one augmentation and one
optimizer. Accuracy is on held-out scenes made of held-out scans.</p>"""

_MAPS = """<p>Top: the scene. Middle: the annotator's best class of each cell, as opaque as it is
probable. Bottom: the digits that are really there; the students never see them.</p>"""

_PHOTOGRAPHS = """<p>What an annotator says of real photographs. EfficientNet-Lite0, trained on ImageNet,
names each of 13 x 13 regions. ImageNet has no dahlias: there the classifier names what it knows.</p>"""

_RULES = """<p>Accuracy in % by the class token alone, by the best token alone, and by both fused (class
logits + 0.5 x best token's). An arm is judged by the rule named beside it, fixed before training.</p>"""
