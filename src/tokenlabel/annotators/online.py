"""An annotator that labels the augmented views of a training step, and stores nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tokenlabel.annotators.protocol import Annotator
from tokenlabel.labels import LabelMap

__all__ = ["labels_of_views"]


def labels_of_views(annotator: Annotator[Any]) -> Callable[[Tensor], list[LabelMap]]:
    """What labels views uint8 [B, 3, H, W], each a picture of its own: one map for each."""

    def label(views: Tensor) -> list[LabelMap]:
        pixels = views.permute(0, 2, 3, 1).cpu().numpy()
        return annotator.annotate([annotator.prepare("", picture) for picture in pixels])

    return label
