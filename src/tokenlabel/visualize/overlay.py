"""A label map drawn over its image, in the image's own frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenlabel.labels import LabelMap

__all__ = ["class_colors", "draw_label_map", "draw_legend"]


def class_colors(num_classes: int) -> NDArray[np.float64]:
    """One RGB colour in [0, 1] a class: [C, 3], well apart for neighbours, the same every time."""
    import matplotlib

    if num_classes <= 10:
        return np.asarray(matplotlib.colormaps["tab10"](np.arange(num_classes)))[:, :3]
    hues = (np.arange(num_classes) * 0.61803398875) % 1.0  # golden ratio: no two neighbours alike
    return np.asarray(matplotlib.colormaps["hsv"](hues))[:, :3]


def draw_label_map(
    axes: Any, image: NDArray[np.uint8], label_map: LabelMap, strength: float = 0.75
) -> None:
    """Image [H, W, 3] dimmed, each cell in its best class's colour, as opaque as it is probable."""
    height, width = image.shape[:2]
    extent = label_map.extent
    axes.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    colors = class_colors(label_map.num_classes)[label_map.classes[0].numpy()]  # [h, w, 3]
    opacity = label_map.probabilities()[0].clamp(0, 1).numpy() * strength
    axes.imshow(
        np.concatenate([colors, opacity[..., None]], -1),
        extent=(
            extent.x0 * width,
            extent.x1 * width,
            extent.y1 * height,
            extent.y0 * height,
        ),
        interpolation="nearest",
    )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])


def draw_legend(figure: Any, class_names: Sequence[str], classes: Sequence[int]) -> None:
    """A row of colour patches under the figure, for the classes that appear."""
    from matplotlib.patches import Patch

    colors = class_colors(len(class_names))
    handles = [Patch(color=colors[c], label=class_names[c]) for c in classes]
    figure.legend(handles=handles, loc="lower center", ncols=min(len(handles), 10), frameon=False)
