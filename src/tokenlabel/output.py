"""`DenseOutput`: what every model returns, in training and in evaluation."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["DenseOutput", "fuse"]


class DenseOutput(NamedTuple):
    """Class scores of an image and of each of its tokens, both before softmax."""

    logits: Tensor  # [B, C]
    tokens: Tensor  # [B, h, w, C]


def fuse(output: DenseOutput, weight: float = 0.5) -> Tensor:
    """Class logits plus `weight` times the best token's logit of each class: [B, C].

    The published test-time prediction (released code, LV_ViT.forward, evaluation branch).
    """
    return output.logits + weight * output.tokens.amax((1, 2))
