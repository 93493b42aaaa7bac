"""`LabelMap`: an annotator's best classes for each region of one image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenlabel.geometry import Box

__all__ = ["LabelMap", "keep_logits", "probabilities"]

_ROUNDING = 1e-3  # of the logarithm of a sum of probabilities, in float16 at worst


@dataclass(frozen=True, repr=False)
class LabelMap:
    """The K best classes of each cell of an H x W map that covers `extent` of an image.

    `scores` are the annotator's logits, best first. `log_normalizer` is the log of the sum of
    exp(logit) over *all* classes of a cell, so `exp(scores - log_normalizer)` is the annotator's exact
    probability; it is None where the source does not say (released labels), and then the K classes
    are taken to be all there is. The rest of an image outside `extent` has no label.
    """

    scores: Tensor  # [K, H, W] float
    classes: Tensor  # [K, H, W] int64, in [0, num_classes)
    log_normalizer: Tensor | None  # [H, W] float
    extent: Box
    num_classes: int

    def __post_init__(self) -> None:
        if self.scores.ndim != 3 or self.scores.shape != self.classes.shape:
            raise ValueError(
                f"scores and classes must both be [K, H, W], got {tuple(self.scores.shape)}"
                f" and {tuple(self.classes.shape)}"
            )
        if self.log_normalizer is not None and self.log_normalizer.shape != self.scores.shape[1:]:
            raise ValueError(
                f"log_normalizer must be [H, W] = {tuple(self.scores.shape[1:])},"
                f" got {tuple(self.log_normalizer.shape)}"
            )

    def __repr__(self) -> str:
        known = "exact probabilities" if self.log_normalizer is not None else "no normalizer"
        x0, y0, x1, y1 = (round(side, 4) for side in self.extent.as_tuple())
        return (
            f"LabelMap(top {self.k} of {self.num_classes} classes, {self.grid[0]} x {self.grid[1]}"
            f" cells, {known},\n         extent ({x0}, {y0}, {x1}, {y1}))"
        )

    @property
    def k(self) -> int:
        return int(self.scores.shape[0])

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of cells."""
        return int(self.scores.shape[1]), int(self.scores.shape[2])

    @property
    def keeps_logits(self) -> bool:
        """Whether `scores` are the annotator's raw logits, not logarithms of probabilities."""
        return keep_logits(self.log_normalizer)

    def probabilities(self) -> Tensor:
        """Probability of each stored class, [K, H, W]; sums to at most 1 over K."""
        return probabilities(self.scores, self.log_normalizer)

    @classmethod
    def from_logits(cls, logits: Tensor, k: int, extent: Box) -> LabelMap:
        """The top `k` of full class scores [C, H, W]."""
        num_classes = logits.shape[0]
        if not 1 <= k <= num_classes:
            raise ValueError(f"top-k of {k} does not fit {num_classes} classes")
        logits = logits.float()
        scores, classes = logits.topk(k, dim=0)
        return cls(scores, classes, torch.logsumexp(logits, 0), extent, num_classes)


def keep_logits(log_normalizer: Tensor | None) -> bool:
    """Whether scores with log-normalizers [..., H, W] are the raw logits in every one of the maps.

    Logarithms of probabilities are their own normalized logits, up to rounding.
    """
    if log_normalizer is None:
        return True
    return bool((log_normalizer.abs() > _ROUNDING).flatten(-2).any(-1).all())


def probabilities(scores: Tensor, log_normalizer: Tensor | None) -> Tensor:
    """Probabilities [..., K, H, W] of such scores, with log-normalizers [..., H, W] or none."""
    if log_normalizer is None:
        return scores.float().softmax(-3)
    return (scores.float() - log_normalizer.float().unsqueeze(-3)).exp_()
