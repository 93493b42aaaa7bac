"""Token labels: every token learns the annotator's distribution over its own area."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic.dataclasses import dataclass

from tokenlabel.errors import InputError
from tokenlabel.options import STRICT, Epochs, NotNegative, Share
from tokenlabel.supervision.method import Annotated, Moment, Rule, Targets

if TYPE_CHECKING:
    from torch import Tensor

    from tokenlabel.targets import TokenTarget

__all__ = ["TokenLabels"]

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
    token_fraction: Share = 1.0
    """Share of the tokens, drawn anew each step, that carry a loss."""
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
        self, labels: Tensor, annotated: TokenTarget | None, num_classes: int, moment: Moment
    ) -> Targets:
        taught = moment.epoch < moment.epochs - self.last_epochs_without_tokens
        return Targets(
            self.class_distribution(labels, annotated, num_classes),
            None if annotated is None else self._some_tokens(annotated, moment),
            self.token_weight if taught else 0.0,
        )

    def annotator_share(self, labels: Tensor, annotated: Tensor) -> Tensor:
        if self.class_target == "blend":  # released code, option `ground_truth`
            import torch

            return torch.where(annotated.argmax(1) == labels, _AGREEING, _DIFFERING)
        return annotated.new_full((len(labels),), float(self.class_target == "annotator"))

    def _some_tokens(self, target: TokenTarget, moment: Moment) -> TokenTarget:
        if self.token_fraction == 1:
            return target
        import torch

        draws = torch.rand(target.mask.shape, generator=moment.random())
        kept = (draws < self.token_fraction).to(target.mask.device)
        return dataclasses.replace(target, mask=target.mask & kept)
