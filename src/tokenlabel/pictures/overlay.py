"""Label maps and heat maps drawn over their image, in the image's own frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap

__all__ = ["class_colors", "draw_heat", "draw_label_map", "draw_legend", "highlight_colors"]

Colors = NDArray[np.float64]  # [C, 3], RGB in [0, 1]

_GREY = 0.6
_WELL_APART = 10  # colours of matplotlib's tab10


def class_colors(num_classes: int) -> Colors:
    """One RGB colour in [0, 1] a class: [C, 3], well apart for neighbours, the same every time."""
    import matplotlib

    if num_classes <= _WELL_APART:
        return np.asarray(matplotlib.colormaps["tab10"](np.arange(num_classes)))[:, :3]
    hues = (np.arange(num_classes) * 0.61803398875) % 1.0  # golden ratio: no two neighbours alike
    return np.asarray(matplotlib.colormaps["hsv"](hues))[:, :3]


def highlight_colors(label_maps: Sequence[LabelMap]) -> tuple[Colors, list[int]]:
    """Colours for the classes that fill most of these maps (of one set of classes), grey for others.

    Returns the colours [C, 3] and the coloured classes, the largest first.
    """
    num_classes = label_maps[0].num_classes
    mass = np.zeros(num_classes)
    for label_map in label_maps:
        best = label_map.probabilities()[0].clamp(0, 1).numpy()
        np.add.at(mass, label_map.classes[0].numpy(), best / best.size)
    chosen = [int(c) for c in mass.argsort()[::-1][:_WELL_APART] if mass[c] > 0]
    colors = np.full((num_classes, 3), _GREY)
    colors[chosen] = class_colors(_WELL_APART)[: len(chosen)]
    return colors, chosen


def draw_label_map(
    axes: Any,
    image: NDArray[np.uint8],
    label_map: LabelMap,
    strength: float = 0.75,
    colors: Colors | None = None,
) -> None:
    """Image [H, W, 3] dimmed, each cell in its best class's colour, as opaque as it is probable."""
    if colors is None:
        colors = class_colors(label_map.num_classes)
    opacity = label_map.probabilities()[0].clamp(0, 1).numpy() * strength
    cells = np.concatenate([colors[label_map.classes[0].numpy()], opacity[..., None]], -1)
    _draw_cells(axes, image, cells, label_map.extent)


def draw_heat(
    axes: Any,
    image: NDArray[np.uint8],
    values: NDArray[np.floating[Any]],
    extent: Box,
    strength: float = 0.85,
) -> None:
    """Image [H, W, 3] dimmed, under cells [h, w] in [0, 1] that glow with their value."""
    import matplotlib

    cells = np.array(matplotlib.colormaps["inferno"](values))
    cells[..., 3] = strength * (0.35 + 0.65 * values)
    _draw_cells(axes, image, cells, extent)


def draw_legend(
    figure: Any, class_names: Sequence[str], classes: Sequence[int], colors: Colors | None = None
) -> None:
    """A row of colour patches under the figure, for the classes that appear."""
    from matplotlib.patches import Patch

    if colors is None:
        colors = class_colors(len(class_names))
    handles = [Patch(color=colors[c], label=class_names[c]) for c in classes]
    columns = max(min(len(handles), round(figure.get_figwidth() / 1.6)), 1)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)


def _draw_cells(
    axes: Any, image: NDArray[np.uint8], cells: NDArray[np.float64], extent: Box
) -> None:
    """Cells [h, w, RGBA] over the part `extent` of the greyed image; axes are in its pixels."""
    height, width = image.shape[:2]
    axes.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    place = (extent.x0 * width, extent.x1 * width, extent.y1 * height, extent.y0 * height)
    axes.imshow(cells, extent=place, interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
