"""Class scores of every cell of an image, through the heads that a model has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tokenlabel.errors import InputError
from tokenlabel.models import DenseModel

__all__ = ["CellScores", "TokenScores"]


class CellScores(nn.Module):
    """Images [B, 3, H, W] to class logits [B, h, w, C].

    The last feature map is cut into its cells and each goes through the classifier's own head as if
    it were a whole image. For heads that are linear behind the pooling the mean of the cells is
    exactly the classifier's output; where a norm or attention follows the pooling it is nearly so.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        self.channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"

    @property
    def head_reads_patches(self) -> bool:
        """False for heads that were trained on a class token and never saw a patch token."""
        return getattr(self.model, "global_pool", None) != "token"

    def forward(self, images: Tensor) -> Tensor:
        features = self.model.forward_features(images)
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            raise InputError(
                f"{type(self.model).__name__} has no single map of features:"
                " choose another annotator"
            )
        if features.ndim == 3:
            return self._tokens(features, images.shape[2] / images.shape[3])
        if self.channels_last:
            b, h, w, d = features.shape
            cells = features.reshape(b * h * w, 1, 1, d)
        else:
            b, d, h, w = features.shape
            cells = features.permute(0, 2, 3, 1).reshape(b * h * w, d, 1, 1)
        return self._head(cells).reshape(b, h, w, -1)

    def _tokens(self, features: Tensor, aspect: float) -> Tensor:
        prefix = getattr(self.model, "num_prefix_tokens", 0)
        b, n, d = features.shape
        h = round(((n - prefix) * aspect) ** 0.5)
        w = (n - prefix) // max(h, 1)
        if h * w != n - prefix or h == 0:
            raise InputError(
                f"{type(self.model).__name__} gives {n - prefix} tokens, which are not a grid of the"
                " image's shape: choose another annotator or a square input"
            )
        # the token stands in for every prefix token too, so that a head reads it wherever it looks
        cells = features[:, prefix:].reshape(b * h * w, 1, d).expand(-1, prefix + 1, -1)
        return self._head(cells).reshape(b, h, w, -1)

    def _head(self, cells: Tensor) -> Tensor:
        logits: Tensor | tuple[Tensor, Tensor] = self.model.forward_head(cells)
        if isinstance(logits, tuple):  # distilled models have two heads
            logits = torch.stack(logits).mean(0)
        return logits


class TokenScores(nn.Module):
    """Images [B, 3, H, W] to the token logits [B, h, w, C] of a student.

    Labels of a student's moving average helped where those of a stronger, foreign network hurt (Zhou
    et al., "Fully Attentional Networks with Self-emerging Token Labeling", 2024, Table 9).
    """

    def __init__(self, student: DenseModel) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.student(images).tokens
        return tokens
