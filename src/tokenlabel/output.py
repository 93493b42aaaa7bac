"""`DenseOutput`: what every model returns, in training and in evaluation."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["TOKEN_SHARE", "DenseOutput", "fuse"]

TOKEN_SHARE = 0.5
"""Weight of the best token beside the class (released code, evaluation branch of its forward)."""


class DenseOutput(NamedTuple):
    """Class scores of an image and of each of its tokens, both before softmax."""

    logits: Tensor  # [B, C]
    tokens: Tensor  # [B, h, w, C]


def fuse(output: DenseOutput, weight: float = TOKEN_SHARE) -> Tensor:
    """Class logits plus `weight` times the best token's logit of each class: [B, C].

    With the default weight, the published test-time prediction.
    """
    return output.logits + weight * output.tokens.amax((1, 2))
