"""`Method`: what every kind of supervision has, and what those that need an annotator share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, get_args

from pydantic.dataclasses import dataclass

from tokenlabel.errors import InputError
from tokenlabel.options import STRICT, Positive, Share

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tokenlabel.labels import LabelMap
    from tokenlabel.labels.token_targets import TargetKind
    from tokenlabel.mixing import Mix
    from tokenlabel.output import DenseOutput
    from tokenlabel.targets import TokenTarget

__all__ = [
    "RULES", "Annotated", "Method", "Moment", "Needs", "Rule", "Targets", "better_rule", "multi_hot",
]  # fmt: skip

Needs = Literal["nothing", "store", "annotator"]
"""Besides images: a store of label maps, or an annotator that labels each augmented view."""

Rule = Literal["class", "token", "fused"]
"""How a student predicts: by its class token, its best token of each class, or both."""
RULES: tuple[Rule, ...] = get_args(Rule)


class Moment(NamedTuple):
    """When a batch is learned from, and the random numbers of that moment."""

    epoch: int  # from 0
    epochs: int
    random: Callable[[], torch.Generator]  # the same numbers at the same update and part


class Targets(NamedTuple):
    """What the two heads learn from a batch."""

    class_target: Tensor  # [B, C]; [B, 0] of images without classes
    token_target: TokenTarget | None
    token_weight: float
    """Of the token loss. Zero keeps the term: every rank has the same parameters in its graph."""
    more: tuple[tuple[TokenTarget, float], ...] = ()
    """What further token heads learn, with the weights of their losses."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Method:
    """The options of every method, and what one may do differently."""

    kind: str = ""
    """The method's name, a literal of each."""
    smoothing: Share = 0.1
    """Label smoothing of every target."""
    class_weights: Literal["none", "balanced"] | list[Positive] = "none"
    """Loss weight of an image by its ground-truth class: "balanced" is inverse frequency."""

    rules: ClassVar[tuple[Rule, ...]] = ("class",)
    """How its student may predict: the published rule first, then what else is measured."""
    teaches_tokens: ClassVar[bool] = False
    """Whether the token head learns anything."""

    @property
    def needs(self) -> Needs:
        return "nothing"

    @property
    def needs_clean_view(self) -> bool:
        """Whether batches must carry each view without color operations and erasing."""
        return False

    @property
    def blends_classes(self) -> bool:
        """Whether the class head learns the annotator's distribution, too."""
        return False

    def rules_of(self, tokens_name_classes: bool) -> tuple[Rule, ...]:
        """`rules` as far as a student's tokens name classes (see `DenseModel`)."""
        return self.rules if tokens_name_classes else ("class",)

    @property
    def annotates_mixed_views(self) -> bool:
        """Whether the annotator labels images after they are mixed with their partners."""
        return False

    @property
    def facts(self) -> dict[str, Any]:
        """What is recorded of the method with the results of a run."""
        return {"supervision": self.kind}

    def check(self, epochs: int) -> None:
        """Raises InputError where the options do not fit a run of so many epochs."""

    def fitted(self, label_map: LabelMap) -> Self:  # noqa: ARG002
        """With the choices that were left open made by the form of the annotator's labels.

        Raises InputError where options and labels do not go together.
        """
        return self

    def remark(self, label_map: LabelMap) -> str | None:  # noqa: ARG002
        """What a user should know of training with such labels, in one line."""
        return None

    def targets(
        self,
        labels: Tensor,
        annotated: TokenTarget | None,
        num_classes: int,
        moment: Moment,  # noqa: ARG002
        more: Sequence[TokenTarget] = (),  # noqa: ARG002
    ) -> Targets:
        """Targets of ground-truth classes `labels` [B] and of the annotator's token targets.

        `more` are those of further annotators.
        """
        return Targets(self.class_distribution(labels, annotated, num_classes), None, 0.0)

    def class_distribution(
        self, labels: Tensor, annotated: TokenTarget | None, num_classes: int
    ) -> Tensor:
        """The class head's targets [B, C]: the ground truth, blended with the annotator's.

        `labels` are [B], or [B, M] padded with -1 where an image may have several classes: then each
        has the mass of one.

        An image whose view the annotator did not see has the ground truth alone. [B, 0] where there
        are no classes.
        """
        if num_classes == 0:
            return labels.new_zeros((len(labels), 0)).float()
        truth = multi_hot(labels, num_classes)
        soft = truth * (1 - self.smoothing) + self.smoothing / num_classes
        if annotated is None:
            return soft
        made = annotated.class_target()
        share = self.annotator_share(labels, made) * annotated.mask[:, 0]
        return soft.lerp(made, share[:, None])

    def annotator_share(self, labels: Tensor, annotated: Tensor) -> Tensor:
        """The annotator's share [B] of each class target; its own target is `annotated` [B, C]."""
        return annotated.new_zeros(len(labels))

    def losses(
        self,
        output: DenseOutput,
        targets: Targets,
        mix: Mix | None = None,
        *,
        more_heads: Iterable[nn.Module] = (),
        multi_label: bool = False,
        **head: Any,
    ) -> dict[str, Tensor]:
        """Named scalars, "loss" among them; keywords as `token_labeling_loss` takes them.

        `more_heads` learn `targets.more`: "token2", "token3" ...
        """
        from tokenlabel.losses import head_loss, token_labeling_loss

        terms = token_labeling_loss(
            output,
            targets.token_target,
            targets.class_target,
            mix,
            token_weight=targets.token_weight,
            multi_label=multi_label,
            **head,
        )
        for number, (other, (target, weight)) in enumerate(
            zip(more_heads, targets.more, strict=True), start=2
        ):
            loss = head_loss(output.tokens, target, mix, **(head | {"head": other}))
            terms[f"token{number}"] = loss
            terms["loss"] = terms["loss"] + weight * loss
        return terms

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """The names of its options, `kind` among them."""
        return tuple(field.name for field in fields(cls))


def better_rule(rules: Sequence[Rule], top1: Mapping[Rule, float]) -> Rule:
    """The class token's rule or the fused one, by accuracy on validation images.

    `rules` are a student's, the published one first: a tie keeps it. The best token alone is
    measured and never chosen.
    """
    return max((rule for rule in rules if rule != "token"), key=top1.__getitem__)


def multi_hot(labels: Tensor, num_classes: int) -> Tensor:
    """1 for every class of an image, [B, C], of class ids [B], or [B, M] padded with -1."""
    several = labels if labels.ndim == 2 else labels[:, None]
    spare = several.new_zeros((len(several), num_classes + 1)).float()
    return spare.scatter_(1, several.where(several >= 0, num_classes), 1.0)[:, :num_classes]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Annotated(Method):
    """A method that learns from an annotator's label maps."""

    target: Literal["auto", "probability", "released", "released-transposed"] = "auto"
    """How targets are made from label maps (see `tokenlabel.token_targets`). "auto" is what the
    labels were made for: "released" where they are logits without their normalizer, as imported
    labels are, else "probability"."""
    online: bool = False
    """Whether the annotator runs on every augmented view, instead of a label store."""
    clean_view: bool = True
    """Online: whether the annotator sees the view without color operations and erasing, as in STL
    (Zhao et al. 2024, arXiv 2401.03844)."""
    same_mix: bool = False
    """Online, with mixup or CutMix: whether the annotator labels the mixed view, as the student sees
    it, instead of each image (Beyer et al. 2022, arXiv 2106.05237, "function matching")."""

    @property
    def needs(self) -> Needs:
        return "annotator" if self.online else "store"

    @property
    def needs_clean_view(self) -> bool:
        return self.online and self.clean_view

    @property
    def annotates_mixed_views(self) -> bool:
        return self.online and self.same_mix

    @property
    def target_kind(self) -> TargetKind:
        """`target` of a fitted method."""
        assert self.target != "auto"
        return self.target

    def fitted(self, label_map: LabelMap) -> Self:
        if self.target == "auto":
            released = label_map.keeps_logits and label_map.log_normalizer is None
            return replace(self, target="released" if released else "probability")
        if self.target != "probability" and not label_map.keeps_logits:
            raise InputError(
                f"supervision.target={self.target} needs the annotator's raw logits, and these labels"
                " are probabilities: annotate with --codec exact and without --flip or --scales, or"
                " use supervision.target=probability"
            )
        return self

    def remark(self, label_map: LabelMap) -> str | None:
        if label_map.log_normalizer is not None or not label_map.keeps_logits:
            return None
        if self.target != "probability":
            return (
                f"these labels keep no normalizer: {self.target} targets, the arithmetic that they"
                " were made for"
            )
        others = label_map.num_classes - label_map.k
        stored = label_map.scores.float().exp().sum(0)
        kept = 1 - self.smoothing
        released = kept * float((stored / (stored + others)).mean())
        return (
            f"warning: these labels keep no normalizer, so probability targets give their"
            f" {label_map.k} classes {kept:.2f} of a token's mass where the released code gave"
            f" {released:.2f} (first image): other targets than the labels were made for; leave"
            " supervision.target out to have those"
        )
