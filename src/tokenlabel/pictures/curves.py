"""A run's metrics as pictures: one panel per quantity, PNG for papers and a self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenlabel.files import write_atomically
from tokenlabel.pictures.page import figure_png, image_tag, page

__all__ = ["draw_curves"]

# panel title -> the metrics drawn in it
_PANELS: dict[str, tuple[str, ...]] = {
    "training loss": ("loss", "class", "token", "decode", "auxiliary"),
    "validation top-1": ("val/top1", "ema/top1"),
    "validation mean IoU": ("val/miou", "ema/miou"),
    "validation mean average precision": ("val/map", "ema/map"),
    "validation nearest neighbors": ("val/knn", "ema/knn"),
    "validation loss": ("val/loss", "ema/loss"),
    "learning rate": ("lr",),
    "images per second": ("images_per_second",),
    "gradient norm": ("gradient_norm",),
}


def draw_curves(metrics: Sequence[Mapping[str, Any]], folder: Path, title: str) -> None:
    """Write `curves.png` and `curves.html` for the entries of a metrics file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {
        name: {key: _series(metrics, key) for key in keys if _series(metrics, key)[0]}
        for name, keys in _PANELS.items()
    }
    panels = {name: series for name, series in panels.items() if series}
    if not panels:
        return
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(11, 3.2 * rows))
    FigureCanvasAgg(figure)
    for place, (name, series) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, 2, place)
        for key, (updates, values) in series.items():
            axes.plot(updates, values, label=key, linewidth=1.2)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("update", fontsize=8)
        axes.grid(alpha=0.3)
        if len(series) > 1:
            axes.legend(fontsize=8)
    # by hand: matplotlib's own layout draws everything twice
    figure.subplots_adjust(0.06, 0.18 / rows, 0.98, 1 - 0.1 / rows, wspace=0.15, hspace=0.4)
    picture = figure_png(figure)
    write_atomically(folder / "curves.png", picture)
    write_atomically(folder / "curves.html", page(title, image_tag(picture, "training curves")))


def _series(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    found = [(entry["update"], entry[key]) for entry in metrics if key in entry]
    return [update for update, _ in found], [value for _, value in found]
