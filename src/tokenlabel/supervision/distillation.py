"""Image-level distillation: the class head learns from the annotator too, tokens learn nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from tokenlabel.options import STRICT, Share
from tokenlabel.supervision.method import Annotated

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Distillation"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Distillation(Annotated):
    """The class head learns a blend of ground truth and annotator; tokens learn nothing.

    The annotator's part is its distribution over the whole view. With a share of 1 and a student
    without token head this is ReLabel (Yun et al. 2021, arXiv 2101.05022).
    """

    kind: Literal["distillation"] = "distillation"
    distillation_share: Share = 0.5
    """The annotator's share of the class target."""

    @property
    def blends_classes(self) -> bool:
        return True

    def annotator_share(self, labels: Tensor, annotated: Tensor) -> Tensor:
        return annotated.new_full((len(labels),), self.distillation_share)
