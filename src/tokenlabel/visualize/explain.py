"""What labels and models say about one image, as panels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap
from tokenlabel.visualize.overlay import draw_heat, draw_label_map
from tokenlabel.visualize.panels import Panel
from tokenlabel.visualize.relevance import attention_rollout, gradient_relevance

__all__ = [
    "best_classes",
    "class_probability",
    "heat_panel",
    "map_panel",
    "relevance_panels",
    "token_map",
]

Pixels = NDArray[np.uint8]


@torch.inference_mode()
def token_map(classifier: Classifier, image: Pixels, k: int | None = None) -> LabelMap:
    """A model's token predictions on the part of an image [H, W, 3] that it is shown.

    The `k` best classes of each token, or all.
    """
    output = classifier.output(classifier.preprocessing.pixels(image)[None])
    logits = output.tokens[0].permute(2, 0, 1)
    return LabelMap.from_logits(logits, k or classifier.num_classes, _shown(classifier, image))


@torch.inference_mode()
def best_classes(classifier: Classifier, image: Pixels) -> list[int]:
    """The classes of an image by the model's class token, the most probable first."""
    output = classifier.output(classifier.preprocessing.pixels(image)[None])
    return output.logits[0].argsort(descending=True).tolist()


def class_probability(label_map: LabelMap, chosen: int) -> NDArray[np.float64]:
    """The probability of one class in each cell, [H, W]; 0 where it is not among the cell's best."""
    is_it = (label_map.classes == chosen).float()
    return np.asarray((label_map.probabilities() * is_it).sum(0).clamp(0, 1), dtype=np.float64)


def map_panel(title: str, image: Pixels, label_map: LabelMap) -> Panel:
    """The best class of each cell."""
    return Panel(title, lambda axes, colors: draw_label_map(axes, image, label_map, 0.75, colors))


def heat_panel(title: str, image: Pixels, values: NDArray[np.float64], extent: Box) -> Panel:
    """Values in [0, 1] of the cells [h, w] that cover `extent`."""
    return Panel(title, lambda axes, _colors: draw_heat(axes, image, values, extent))


def relevance_panels(
    classifier: Classifier, image: Pixels, classes: Sequence[int], names: Sequence[str]
) -> list[Panel]:
    """Attention rollout, and the gradient-weighted relevance for each of `classes`.

    Each picture is scaled by its own greatest value.
    """
    pixels = classifier.preprocessing.pixels(image)[None]
    device = next(classifier.model.parameters()).device
    inputs = classifier.preprocessing.normalize(pixels.to(device))
    extent = _shown(classifier, image)
    rollout = _scaled(attention_rollout(classifier.model, inputs))
    panels = [heat_panel("attention rollout", image, rollout, extent)]
    for chosen in classes:
        target = torch.tensor([chosen], device=device)
        values = _scaled(gradient_relevance(classifier.model, inputs, target))
        panels.append(heat_panel(f"relevance for {names[chosen]}", image, values, extent))
    return panels


def _shown(classifier: Classifier, image: Pixels) -> Box:
    height, width = image.shape[:2]
    return classifier.preprocessing.view((height, width)).source_box()


def _scaled(values: Tensor) -> NDArray[np.float64]:
    scaled = values[0].double().cpu()
    return np.asarray(scaled / scaled.max().clamp(min=1e-12))
