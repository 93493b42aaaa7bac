"""Token labels: every token learns the annotator's distribution over its own area."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic.dataclasses import dataclass

from tokenlabel.errors import InputError
from tokenlabel.options import STRICT, Epochs, NotNegative, Positive, Share
from tokenlabel.supervision.method import Annotated, Moment, Rule, Targets

if TYPE_CHECKING:
    from torch import Tensor

    from tokenlabel.targets import TokenTarget

__all__ = ["TokenLabels", "one_class"]

# of "blend": the annotator's share where it agrees with the ground truth, and where it does not
_AGREEING, _DIFFERING = 0.5, 0.9


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TokenLabels(Annotated):
    """The method of the paper (Jiang et al. 2021, arXiv 2104.10858).

    The class head learns `class_target`, every token the annotator's distribution over its area.
    """

    kind: Literal["token-labels"] = "token-labels"
    token_weight: NotNegative = 0.5
    """Weight of the token loss beside the class loss: 0.5 in the paper, 1.0 in the released code."""
    class_target: Literal["ground-truth", "annotator", "blend"] = "ground-truth"
    """"blend" is the released code's: half the annotator's where it agrees with the ground truth,
    nine tenths where it does not."""
    token_classes: Literal["all", "drawn"] = "all"
    """"drawn": each token learns one class, drawn anew at each step from the annotator's distribution;
    the hard Gumbel-softmax of STL (Zhao et al. 2024, arXiv 2401.03844) draws so."""
    token_fraction: Share = 1.0
    """Share of the tokens, drawn anew each step, that carry a loss."""
    label_weights: tuple[Positive, ...] = ()
    """Of several label stores: what each one's token loss is multiplied by besides; 1 by default."""
    last_epochs_without_tokens: Epochs = 0
    """How many epochs at the end train on the class loss alone."""

    rules: ClassVar[tuple[Rule, ...]] = ("fused", "class", "token")
    teaches_tokens: ClassVar[bool] = True

    def check(self, epochs: int) -> None:
        if self.last_epochs_without_tokens > epochs:
            raise InputError(
                f"supervision.last_epochs_without_tokens = {self.last_epochs_without_tokens} is"
                f" more than all {epochs} epochs"
            )

    def targets(
        self,
        labels: Tensor,
        annotated: TokenTarget | None,
        num_classes: int,
        moment: Moment,
        more: Sequence[TokenTarget] = (),
    ) -> Targets:
        taught = moment.epoch < moment.epochs - self.last_epochs_without_tokens
        weight = self.token_weight if taught else 0.0
        first, *rest = self.label_weights or (1.0,) * (1 + len(more))
        return Targets(
            self.class_distribution(labels, annotated, num_classes),
            None if annotated is None else self._token_target(annotated, moment),
            weight * first,
            tuple(
                (self._token_target(target, moment), weight * own)
                for target, own in zip(more, rest, strict=True)
            ),
        )

    def class_distribution(
        self, labels: Tensor, annotated: TokenTarget | None, num_classes: int
    ) -> Tensor:
        # what the annotator names need not be classes
        theirs = None if self.class_target == "ground-truth" else annotated
        return super().class_distribution(labels, theirs, num_classes)

    @property
    def blends_classes(self) -> bool:
        return self.class_target != "ground-truth"

    def annotator_share(self, labels: Tensor, annotated: Tensor) -> Tensor:
        if self.class_target == "blend":  # released code, option `ground_truth`
            import torch

            return torch.where(annotated.argmax(1) == labels, _AGREEING, _DIFFERING)
        return annotated.new_full((len(labels),), float(self.class_target == "annotator"))

    def _token_target(self, target: TokenTarget, moment: Moment) -> TokenTarget:
        if self.token_fraction == 1 and self.token_classes == "all":
            return target
        import torch

        random = moment.random()
        if self.token_fraction < 1:
            draws = torch.rand(target.mask.shape, generator=random)
            kept = (draws < self.token_fraction).to(target.mask.device)
            target = dataclasses.replace(target, mask=target.mask & kept)
        if self.token_classes == "drawn":
            draws = torch.rand(target.mask.shape, generator=random).to(target.excess.device)
            target = one_class(target, draws, self.smoothing)
        return target


def one_class(target: TokenTarget, draws: Tensor, smoothing: float) -> TokenTarget:
    """Targets of one class each, with label smoothing: their mean over uniform `draws` is `target`.

    `draws` [B, T] lie in [0, 1); `smoothing` is the one in `target`. A distribution is its residual,
    spread over all classes, and the excesses of its palette. Where the draw falls on the residual,
    the target is uniform: the mean of that draw, which no palette could name.
    """
    classes = target.num_classes
    excess = target.excess.clamp(min=0)
    outside = (target.residual - smoothing / classes).clamp(min=0) * classes
    total = excess.sum(-1) + outside
    reached = excess.cumsum(-1) > (draws * total)[..., None]
    chosen = reached.clone()
    chosen[..., 1:] &= ~reached[..., :-1]
    drawn = chosen.to(excess.dtype) * (1 - smoothing)
    uniform = ~reached[..., -1]
    residual = target.residual.new_full(target.residual.shape, smoothing / classes)
    residual = residual.masked_fill(uniform, 1 / classes)
    return dataclasses.replace(target, excess=drawn, residual=residual)
