"""Draws `images/label-maps.jpg`: photographs above their label maps.

    python docs/label_maps.py LABELS PHOTOGRAPHS OUTPUT CLASS/FILE ...

LABELS is a store that `tokenlabel annotate --keep-classes --image-size 416` made of the photographs with
a pretrained classifier (tf_efficientnet_lite2).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from tokenlabel.evaluation.classifier import class_titles, default_names
from tokenlabel.labels import LabelStore
from tokenlabel.pictures.colors import class_colors, visible_classes
from tokenlabel.pictures.overlay import draw_label_map, shortened

_SIDE = 320  # pixels of the squares that are drawn
_LISTED = 3  # classes below a map


def main(labels: str, photographs: str, output: str, *keys: str) -> None:
    store = LabelStore(labels)
    names = class_titles(store.manifest.class_names or default_names(store.num_classes))
    figure = Figure(figsize=(1.95 * len(keys), 4.75))
    grid = figure.subplots(2, len(keys), squeeze=False)
    for key, (above, below) in zip(keys, grid.T, strict=True):
        picture = Image.open(Path(photographs, key)).convert("RGB")
        image = np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
        above.imshow(image)
        above.set(xticks=[], yticks=[])
        label_map = store[key]
        draw_label_map(below, image, label_map, 0.85)
        colors = class_colors(label_map.num_classes)
        shown = visible_classes([label_map], limit=_LISTED)
        patches = [Patch(color=colors[c], label=shortened(names[c], 22)) for c in shown]
        below.legend(
            handles=patches,
            loc="upper left",
            bbox_to_anchor=(-0.04, -0.01),
            frameon=False,
            fontsize=9.5,
        )
    figure.subplots_adjust(0.005, 0.155, 0.995, 0.995, wspace=0.03, hspace=0.03)
    figure.savefig(output, dpi=100, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    main(*sys.argv[1:])
