"""The color of a class: one rule for every picture, page and overlay.

It follows from the class's number, or from its name where nature has settled one (sky is blue), and
from nothing else: not from how many classes there are, nor from which of them a picture shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tokenlabel.labels import LabelMap

__all__ = ["Colors", "class_colors", "hex_colors", "visible_cells", "visible_classes"]

Colors = NDArray[np.float64]  # [C, 3], RGB in [0, 1]

_GOLDEN_ANGLE = np.pi * (3 - 5**0.5)  # keeps any run of successive hues apart
_LIGHTNESS = (0.66, 0.52, 0.80)  # of successive classes in Oklab: similar hues differ in lightness
_CHROMA = 0.19
_FIRST_HUE = 0.5  # radians: class 0 is red
_LEAST = 0.02  # of a picture that a class fills to be seen in it

# what people expect of scenes; ADE20K's and Cityscapes' palettes agree on most of these
_BY_NAME = {
    "sky": "#78b4e6",
    "tree": "#2e8b3a",
    "vegetation": "#2e8b3a",
    "plant": "#53a548",
    "grass": "#86c440",
    "terrain": "#98c379",
    "earth": "#9c7a4d",
    "sand": "#dcc48e",
    "water": "#2a6fbf",
    "sea": "#1f5fa8",
    "river": "#3f86c9",
    "road": "#7d5a8c",
    "sidewalk": "#e07bd0",
    "pavement": "#e07bd0",
    "building": "#b5673c",
    "house": "#c98350",
    "wall": "#a39a8a",
    "fence": "#c9a27a",
    "mountain": "#7f8f5a",
    "snow": "#e6eef5",
    "person": "#e0303f",
    "pedestrian": "#e0303f",
    "bicyclist": "#f2801e",
    "rider": "#f2801e",
    "bicycle": "#8c2b3d",
    "car": "#1747c4",
    "bus": "#10a3a3",
    "truck": "#0b3b73",
    "pole": "#f2d21b",
    "sign": "#ffb000",
    "traffic sign": "#ffb000",
    "traffic light": "#ff6a00",
}


def class_colors(num_classes: int, names: Sequence[str] = ()) -> Colors:
    """One RGB color in [0, 1] a class, [C, 3]; `names` are the classes' names, where known."""
    number = np.arange(num_classes)
    hue = _FIRST_HUE + number * _GOLDEN_ANGLE
    lightness = np.take(_LIGHTNESS, number % len(_LIGHTNESS))
    colors = _srgb(lightness, _CHROMA * np.cos(hue), _CHROMA * np.sin(hue))
    for place, name in enumerate(names[:num_classes]):
        known = _BY_NAME.get(name.strip().lower().replace("_", " "))
        if known is not None:
            colors[place] = [int(known[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return colors


def hex_colors(num_classes: int, names: Sequence[str] = ()) -> list[str]:
    """The colors of `class_colors` as a page writes them: "#rrggbb"."""
    whole = (class_colors(num_classes, names) * 255).round().astype(int)
    return ["#{:02x}{:02x}{:02x}".format(*color) for color in whole.tolist()]


def visible_classes(label_maps: Sequence[LabelMap], limit: int = 10) -> list[int]:
    """The classes that can be seen in maps of one set of classes (see `visible_cells`)."""
    count = label_maps[0].num_classes if label_maps else 0
    best = [(found.classes[0], found.probabilities()[0]) for found in label_maps]
    return visible_cells(best, count, limit)


def visible_cells(
    pictures: Sequence[tuple[Tensor, Tensor]],
    num_classes: int,
    limit: int = 10,
) -> list[int]:
    """The classes that can be seen in pictures of cells [h, w], each with a class and its share.

    A class is as visible as its cells are many and sure: the mean of its share over all cells, 0
    where another class is drawn. The most visible first, at most `limit`; none of less than 2 % in
    every picture.
    """
    mass = np.zeros(num_classes)
    for classes, share in pictures:
        sure = share.clamp(0, 1).double().numpy()
        one = np.zeros_like(mass)
        np.add.at(one, classes.numpy(), sure / sure.size)
        mass = np.maximum(mass, one)
    order = np.argsort(-mass, kind="stable")[:limit]
    return [int(c) for c in order if mass[c] >= _LEAST] or [int(c) for c in order[:1]]


def _srgb(lightness: Colors, a: Colors, b: Colors) -> Colors:
    """sRGB in [0, 1] of Oklab coordinates (Ottosson 2020), clipped to what a screen shows."""
    lms = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ],
        -1,
    )
    linear = (lms**3) @ np.array(
        [
            [4.0767416621, -1.2684380046, -0.0041960863],
            [-3.3077115913, 2.6097574011, -0.7034186147],
            [0.2309699292, -0.3413193965, 1.7076147010],
        ]
    )
    linear = linear.clip(0, 1)
    curved = 1.055 * linear ** (1 / 2.4) - 0.055
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, curved))
