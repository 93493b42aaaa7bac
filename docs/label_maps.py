"""Draws `images/label-maps.jpg`: photographs above their label maps, and above a student's answers.

    python docs/label_maps.py LABELS PHOTOGRAPHS OUTPUT CLASS/FILE ... [--student RUN]

LABELS is a store that `tokenlabel annotate --keep-classes --image-size 416` made of the photographs with
a pretrained classifier (tf_efficientnet_lite2). RUN is a run; a class has the same color in both rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from tokenlabel.evaluation.classifier import class_titles, default_names
from tokenlabel.evaluation.load import load_classifier
from tokenlabel.labels import LabelMap, LabelStore
from tokenlabel.pictures.colors import class_colors, visible_classes
from tokenlabel.pictures.explain import token_map
from tokenlabel.pictures.overlay import draw_label_map, shortened

_SIDE = 320  # pixels of the squares that are drawn
_INCHES, _LEGEND = 1.95, 0.7  # of a square, and of the lines below one
_LISTED = 3  # classes below a map


def main(given: argparse.Namespace) -> None:
    store = LabelStore(given.labels)
    names = class_titles(store.manifest.class_names or default_names(store.num_classes))
    student = None if given.student is None else load_classifier(given.student)
    rows = 2 if student is None else 3
    heights = [_INCHES, *[_INCHES + _LEGEND] * (rows - 1)]
    width, height = _INCHES * len(given.keys), sum(heights)
    figure = Figure(figsize=(width, height))
    for column, key in enumerate(given.keys):
        picture = Image.open(Path(given.photographs, key)).convert("RGB")
        image = np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
        cells = []
        for row in range(rows):
            left, top = column * _INCHES + 0.02, sum(heights[:row]) + 0.02
            side = _INCHES - 0.05
            place = (left / width, 1 - (top + side) / height, side / width, side / height)
            cells.append(figure.add_axes(place))
        cells[0].imshow(image)
        cells[0].set(xticks=[], yticks=[])
        _draw(cells[1], image, store[key], names)
        if student is not None:
            said = student.predict(picture)[0].top[0]
            title = f"“{shortened(said.title, 16)}”, {100 * said.confidence:.0f} %"
            tokens, titles = token_map(student, np.asarray(picture)), student.titles()
            if set(titles) <= set(names):
                tokens, titles = _renumbered(tokens, [names.index(t) for t in titles], names), names
            _draw(cells[2], image, tokens, titles, title)
    figure.savefig(
        given.output, dpi=100, bbox_inches="tight", pad_inches=0.03, pil_kwargs={"quality": 88}
    )


def _renumbered(label_map: LabelMap, numbers: Sequence[int], names: Sequence[str]) -> LabelMap:
    """A map of classes whose numbers among `names` are `numbers`."""
    classes = torch.tensor(numbers)[label_map.classes]
    return replace(label_map, classes=classes, num_classes=len(names))


def _draw(
    axes: Any, image: Any, label_map: LabelMap, names: Sequence[str], title: str | None = None
) -> None:
    """A map over the squared photograph, with its most visible classes below it."""
    draw_label_map(axes, image, label_map, 0.85)
    colors = class_colors(label_map.num_classes)
    listed = _LISTED if title is None else _LISTED - 1
    patches = [
        Patch(color=colors[c], label=shortened(names[c], 22))
        for c in visible_classes([label_map], limit=listed)
    ]
    axes.legend(
        handles=patches,
        title=title,
        loc="upper left",
        bbox_to_anchor=(-0.04, -0.01),
        frameon=False,
        fontsize=9.5,
        title_fontsize=9.5,
        alignment="left",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("labels", "photographs", "output"):
        parser.add_argument(name)
    parser.add_argument("keys", nargs="+")
    parser.add_argument("--student")
    main(parser.parse_args())
