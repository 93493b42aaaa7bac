"""A picture for each statistic of `Health`."""

from __future__ import annotations

from pathlib import Path

from tokenlabel.files import write_atomically
from tokenlabel.labels.health import Health
from tokenlabel.labels.word_health import WordHealth
from tokenlabel.pictures.page import figure_png

__all__ = ["draw_health"]

_TITLES = {
    "agreement": "Image-level top-1 agrees with the true class (1 = yes)",
    "true_class_cells": "Share of an image's cells that name the true class",
    "top_k_mass": "Probability inside the stored classes",
    "entropy": "Entropy of the cells, as a share of the largest possible",
}


def draw_health(health: Health | WordHealth, folder: Path) -> list[Path]:
    """Write `<statistic>.png` to a folder: a histogram over images each, bars for orientations.

    Of visual words: how full each of them is.
    """
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    if isinstance(health, WordHealth):
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot(range(1, health.words + 1), sorted(health.shares, reverse=True))
        axes.axhline(1 / health.words, color="black", linestyle="--")
        axes.set(yscale="log")
        figure.suptitle("Share of the cells of each word, the fullest first", fontsize=11)
        paths.append(folder / "words.png")
        write_atomically(paths[-1], figure_png(figure))
    for name, title in _TITLES.items() if isinstance(health, Health) else ():
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.subplots()
        axes.hist(getattr(health, name), bins=20, range=(0, 1))
        axes.axvline(health.means[name], color="black", linestyle="--")
        axes.set(ylabel="images", xlim=(0, 1))
        figure.suptitle(title, fontsize=11)
        paths.append(folder / f"{name}.png")
        write_atomically(paths[-1], figure_png(figure))
    if health.orientation:
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.subplots()
        axes.barh(list(health.orientation), list(health.orientation.values()))
        axes.invert_yaxis()
        figure.suptitle("Color variance that the labels explain, per orientation", fontsize=11)
        paths.append(folder / "orientation.png")
        write_atomically(paths[-1], figure_png(figure))
    return paths
