"""The confusion matrix of a classifier, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from tokenlabel.files import write_atomically
from tokenlabel.pictures.overlay import literal
from tokenlabel.pictures.page import figure_png

__all__ = ["draw_confusion"]

_NAMED = 40  # with more classes than this, their names do not fit


def draw_confusion(file: Path, confusion: Tensor, names: Sequence[str]) -> None:
    """Of each true class (row), the share predicted as each class (column).

    `confusion` [C, C] counts images by true and predicted class; classes without any are left out.
    """
    present = (confusion.sum(1) + confusion.sum(0)).nonzero()[:, 0]
    part = confusion[present][:, present].double()
    share = part / part.sum(1, keepdim=True).clamp(min=1)
    few = len(present) <= _NAMED
    side = 2.5 + 0.25 * len(present) if few else 9
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="true class")
    if few:
        shown = [literal(names[i]) for i in present.tolist()]
        axes.set_xticks(range(len(shown)), shown, rotation=90)
        axes.set_yticks(range(len(shown)), shown)
    figure.colorbar(picture, label="share of the true class's images", shrink=0.8)
    write_atomically(file, figure_png(figure))
