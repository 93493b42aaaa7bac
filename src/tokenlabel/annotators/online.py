"""An annotator that labels the augmented views of a training step, and stores nothing."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from tokenlabel.annotators.protocol import Annotator
from tokenlabel.annotators.word_model import WordAnnotator
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelMap

__all__ = ["OnlineLabels", "ViewAnnotator"]


@runtime_checkable
class ViewAnnotator(Protocol):
    """An annotator that needs the pixels of a view alone, and labels them on their device."""

    def label_views(self, views: Tensor) -> list[LabelMap]:
        """One map for each of the views [B, C, H, W] in [0, 255]."""
        ...


class OnlineLabels:
    """Labels views [B, C, H, W] in [0, 255], each a picture of its own: one map for each.

    `in_chans` are the channels of the views. Raises InputError for annotators that know places in stored
    images, not in views of them, and for those of other channels; gray views may become RGB.
    """

    def __init__(self, annotator: Annotator[Any], in_chans: int = 3) -> None:
        if not isinstance(annotator, ViewAnnotator):
            raise InputError(
                f"{type(annotator).__name__} labels stored images, not augmented views: annotate the"
                " images first and leave online out"
            )
        takes = getattr(annotator, "channels", 3)
        if takes != in_chans and (in_chans, takes) != (1, 3):
            raise InputError(
                f"the annotator takes images of {takes} channels, the student of {in_chans}: teach an"
                " annotator with as many (--in-chans), or annotate first, with its own --channels"
            )
        self.words = annotator.num_classes if isinstance(annotator, WordAnnotator) else None
        """How many visual words it knows, where it names these instead of classes."""
        if isinstance(annotator, WordAnnotator) and annotator.vocabulary is None:
            raise InputError(
                "online words must be known beforehand: annotate some images with --words, and name"
                " that store as the annotator's vocabulary"
            )
        self._label = annotator.label_views
        self.origin = annotator.description
        """What a run records of its annotator: kind, weights, preprocessing; JSON."""

    def __call__(self, views: Tensor) -> list[LabelMap]:
        return self._label(views)
