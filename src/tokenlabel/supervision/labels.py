"""Ground truth alone: the class head learns the label, tokens learn nothing."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from tokenlabel.options import STRICT
from tokenlabel.supervision.method import Method

__all__ = ["GroundTruth"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GroundTruth(Method):
    """The baseline: the class head learns the ground truth, tokens learn nothing."""

    kind: Literal["labels"] = "labels"
