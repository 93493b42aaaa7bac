"""Label maps and heat maps drawn over their image, in the image's own frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap
from tokenlabel.pictures.colors import Colors, class_colors

__all__ = ["draw_heat", "draw_label_map", "draw_legend", "legend_columns", "literal", "shortened"]

_GLOW = 0.85  # opacity of the greatest value


def draw_label_map(
    axes: Any,
    image: NDArray[np.uint8],
    label_map: LabelMap,
    strength: float = 0.75,
    colors: Colors | None = None,
) -> None:
    """Image [H, W, 3] dimmed, each cell in its best class's color, as opaque as it is probable."""
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
) -> None:
    """Image [H, W, 3] dimmed, under cells [h, w] in [0, 1] that glow with their value."""
    import matplotlib

    cells = np.array(matplotlib.colormaps["inferno"](values))
    cells[..., 3] = _GLOW * (0.35 + 0.65 * values)
    _draw_cells(axes, image, cells, extent)


def draw_legend(
    figure: Any, class_names: Sequence[str], classes: Sequence[int], colors: Colors | None = None
) -> None:
    """Color patches at the foot of the figure, for the classes that can be seen in it."""
    from matplotlib.patches import Patch

    if colors is None:
        colors = class_colors(len(class_names), class_names)
    names = [shortened(class_names[c]) for c in classes]
    handles = [
        Patch(color=colors[c], label=literal(name)) for c, name in zip(classes, names, strict=True)
    ]
    if handles:
        columns = legend_columns(names, figure.get_figwidth())
        figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False)


def legend_columns(names: Sequence[str], width: float) -> int:
    """How many entries stand side by side in a figure of that many inches."""
    inches = 0.6 + 0.085 * max(map(len, names))  # of an entry in 10-point type
    return max(min(len(names), int(width / inches)), 1)


def literal(name: str) -> str:
    """A name as matplotlib prints it letter by letter: it reads what stands between "$" as math."""
    return name.replace("$", r"\$")


def shortened(name: str, longest: int = 28) -> str:
    """A class's name for a legend or heading: synonyms after the first comma are left out."""
    first = name.split(",")[0].strip()
    return first if len(first) <= longest else first[: longest - 1] + "…"


def _draw_cells(
    axes: Any, image: NDArray[np.uint8], cells: NDArray[np.float64], extent: Box
) -> None:
    """Cells [h, w, RGBA] over the part `extent` of the grayed image; axes are in its pixels."""
    height, width = image.shape[:2]
    axes.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    place = (extent.x0 * width, extent.x1 * width, extent.y1 * height, extent.y0 * height)
    axes.imshow(cells, extent=place, interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
