"""What is trained: modules that turn a batch into named losses, so that the loop knows no method.

A task wraps its student and does the whole forward pass of one part of an update. DDP and FSDP wrap
the task. Its losses are means over the images of the part; parts are equally large, so their average
is the update's loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.data.inputs import Normalize
from tokenlabel.geometry import View
from tokenlabel.labels import LabelMap, token_targets
from tokenlabel.losses import class_loss, fused_token_loss, token_loss
from tokenlabel.mixing import Mix
from tokenlabel.runs.recipe import Mixing, Supervision
from tokenlabel.targets import TokenTarget
from tokenlabel.training.randomness import generator

if TYPE_CHECKING:
    from tokenlabel.data.batch import Batch

__all__ = ["Step", "Student", "TokenLabelingTask", "draw_mix"]

_MIX, _TOKENS = 1, 2  # streams of random numbers


@dataclass(frozen=True)
class Step:
    """Which part of which update a forward pass computes."""

    update: int  # from 0
    epoch: int  # from 0
    part: int  # this pass is slice `part` of the update's `parts` equal slices of images,
    parts: int  # over all ranks and accumulated passes


class Student(Protocol):
    """What the task needs of a model; `tokenlabel.DenseModel` is one."""

    heads: str
    token_head: nn.Linear

    def forward_tokens(self, images: Tensor, mix: Mix | None = None) -> tuple[Tensor, Tensor]:
        """Class logits [B, C] and token features [B, h, w, D], before `token_head`."""

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]: ...


class TokenLabelingTask(nn.Module):
    """Token labelling, and its baselines, on batches of uint8 images.

    - `mean`, `std`: the student's normalization, of pixels in [0, 1].
    - `class_weights` [C] weigh an image's losses by its ground-truth class.
    - `annotator` labels the augmented view of every image ([B, 3, H, W] uint8 to label maps) where
      the batches carry no targets.
    - `token_head_chunk`: apply the token head to so many images at a time, which saves the memory of
      the others' token logits; None applies it to all at once.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        student: nn.Module,
        supervision: Supervision,
        mixing: Mixing,
        *,
        num_classes: int,
        image_size: tuple[int, int],
        seed: int,
        total_epochs: int,
        mean: Sequence[float],
        std: Sequence[float],
        class_weights: Tensor | None = None,
        annotator: Callable[[Tensor], Sequence[LabelMap]] | None = None,
        token_head_chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.supervision = supervision
        self.mixing = mixing
        self.num_classes = num_classes
        self.grid = self._student.grid(image_size)
        self.seed = seed
        self.token_epochs = total_epochs - supervision.last_epochs_without_tokens
        self.annotator = annotator
        self.token_head_chunk = token_head_chunk
        self.losses = self._losses
        self.normalize = Normalize(mean, std)  # uint8 [B, 3, H, W] to the student's input
        self.register_buffer("class_weights", class_weights, persistent=False)
        if supervision.kind != "token-labels" and self._student.heads != "tokens":
            # nothing teaches the token head: it must not drift by weight decay alone
            self._student.token_head.requires_grad_(False)

    @property
    def _student(self) -> Student:
        return cast(Student, self.student)

    def compile(self, **options: Any) -> None:
        """Compile all that computes; what draws random numbers and looks up labels stays as it is."""
        self.losses = torch.compile(self._losses, **options)

    def forward(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Named losses of one part, scalars; "loss" is the one to minimise."""
        target = batch.target
        if target is None and self.annotator is not None:
            target = self._annotate(batch.images)
        mix = draw_mix(self.mixing, len(batch.images), self.grid, step, self.seed)
        return self.losses(
            batch.images,
            self.class_target(batch.labels, target),
            self._token_target(target, batch.labels, step),
            None if mix is None else mix.to(batch.images.device),
            # a weight of zero, not an absent term: every rank keeps the same parameters in its graph
            self.supervision.token_weight if step.epoch < self.token_epochs else 0.0,
        )

    def _losses(
        self,
        images: Tensor,
        class_target: Tensor,
        target: TokenTarget | None,
        mix: Mix | None,
        token_weight: float,
    ) -> dict[str, Tensor]:
        logits, features = self._student.forward_tokens(self.normalize(images), mix)
        terms = {"class": class_loss(logits, class_target, mix)}
        if target is None:
            return {"loss": terms["class"], **terms}
        head = self._student.token_head
        if self.token_head_chunk is None:
            terms["token"] = token_loss(head(features), target, mix)
        else:
            terms["token"] = fused_token_loss(
                features, head.weight, head.bias, target, mix, self.token_head_chunk
            )
        return {"loss": terms["class"] + token_weight * terms["token"], **terms}

    def class_target(self, labels: Tensor, target: TokenTarget | None) -> Tensor:
        """The class token's target [B, C], by the kind of supervision and weighted by class."""
        truth = F.one_hot(labels, self.num_classes).float()
        smoothing = self.supervision.smoothing
        soft = truth * (1 - smoothing) + smoothing / self.num_classes
        if target is not None:
            annotated = target.class_target()
            share = self._annotator_share(labels, annotated) * target.mask[:, 0]
            soft = torch.lerp(soft, annotated, share[:, None])
        # cross-entropy is linear in its target, so weights go there; the mean stays over images,
        # which does not depend on how images fall on ranks (a mean over weights would)
        return soft if self.class_weights is None else soft * self.class_weights[labels, None]

    def _annotator_share(self, labels: Tensor, annotated: Tensor) -> Tensor:
        """The annotator's share [B] of each class target."""
        rule = self.supervision.class_target
        if self.supervision.kind == "distillation":
            share = self.supervision.distillation_share
        elif rule == "blend":  # released code, option `ground_truth`: trusted less where it agrees
            return torch.where(annotated.argmax(1) == labels, 0.5, 0.9)
        else:
            share = 1.0 if rule == "annotator" else 0.0
        return annotated.new_full((len(labels),), share)

    def _token_target(
        self, target: TokenTarget | None, labels: Tensor, step: Step
    ) -> TokenTarget | None:
        if target is None or self.supervision.kind != "token-labels":
            return None
        if self.supervision.token_fraction < 1:
            draws = torch.rand(
                target.mask.shape, generator=generator(self.seed, _TOKENS, step.update, step.part)
            )
            kept = (draws < self.supervision.token_fraction).to(target.mask.device)
            target = dataclasses.replace(target, mask=target.mask & kept)
        if self.class_weights is not None:
            weight = self.class_weights[labels][:, None]
            target = dataclasses.replace(
                target,
                excess=target.excess * weight[..., None],
                residual=target.residual * weight,
            )
        return target

    @torch.no_grad()
    def _annotate(self, images: Tensor) -> TokenTarget:
        assert self.annotator is not None
        label_maps = self.annotator(images)
        views = [View.identity()] * len(label_maps)
        kind, smoothing = self.supervision.target, self.supervision.smoothing
        return token_targets(label_maps, views, self.grid, kind, smoothing).to(images.device)


def draw_mix(mixing: Mixing, size: int, grid: tuple[int, int], step: Step, seed: int) -> Mix | None:
    """The mix of a part of `size` images; parts of one update share their boxes.

    Drawn for the whole update and cut, so that an update mixes the same images with the same boxes
    however many ranks and accumulated passes it is divided into (parts of even size).
    """
    random = generator(seed, _MIX, step.update)
    decides, switches = torch.rand(2, generator=random).tolist()
    kind, alpha = mixing.kind, mixing.alpha
    if kind == "none" or decides >= mixing.probability:
        return None
    if kind == "cutmix-or-mixup":
        kind = "cutmix" if switches < 0.5 else "mixup"
        alpha = mixing.alpha if kind == "cutmix" else mixing.mixup_alpha
    room = size + size % 2  # an odd part must not begin in the middle of a pair
    whole = Mix.draw(
        room * step.parts,
        grid,
        kind=kind,
        alpha=alpha,
        per_sample=mixing.per_sample,
        generator=random,
    )
    start = step.part * room
    share = whole.share[start : start + size] if mixing.per_sample else whole.share
    return Mix(whole.partner[:size].clamp(max=size - 1), share, whole.level)
