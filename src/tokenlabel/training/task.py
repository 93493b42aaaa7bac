"""What is trained: modules that turn a batch into named losses, so that the loop knows no method.

A task wraps its student and does the whole forward pass of one part of an update. DDP and FSDP wrap
the task. Its losses are means over the images of the part; parts are equally large, so their average
is the update's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn

from tokenlabel.data.inputs import Normalize
from tokenlabel.errors import InputError
from tokenlabel.geometry import View
from tokenlabel.labels import LabelMap, token_targets
from tokenlabel.mixing import Mix
from tokenlabel.output import DenseOutput
from tokenlabel.runs.recipe import Mixing
from tokenlabel.supervision import AnnotatedMethod, Method, Moment, Rule, Targets
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
    tokens_name_classes: bool
    token_heads: Sequence[nn.Module]  # the first is `token_head`

    def forward_tokens(self, images: Tensor, mix: Mix | None = None) -> tuple[Tensor, Tensor]:
        """Class logits [B, C] and token features [B, h, w, D], before `token_head`."""

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]: ...


class TokenLabelingTask(nn.Module):
    """Token labeling, and its baselines, on batches of uint8 images.

    - `mean`, `std`: the student's normalization, of pixels in [0, 1].
    - `class_weights` [C] weigh an image's losses by its ground-truth class.
    - `annotator` labels the view of every image ([B, 3, H, W] in [0, 255] to label maps) where the
      batches carry no targets: the clean one, where they carry it. Maps, targets and losses stay on
      the images' device.
    - `multi_label`: images may have several classes: the class head learns each by itself.
    - `token_head_chunk`: apply the token head to so many images at a time, which saves the memory of
      the others' token logits; None applies it to all at once.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        student: nn.Module,
        supervision: Method,
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
        multi_label: bool = False,
    ) -> None:
        super().__init__()
        self.student = student
        self.supervision = supervision
        self.mixing = mixing
        self.num_classes = num_classes
        self.multi_label = multi_label
        self.grid = self._student.grid(image_size)
        self.mixing_grid = self.grid
        if self._student.heads == "class":  # no tokens: boxes lie on the borders of pixels
            if mixing.kind in ("cutmix", "cutmix-or-mixup"):
                self.mixing_grid = image_size
            if supervision.teaches_tokens and mixing.kind not in ("none", "mixup"):
                raise InputError(
                    f"a student without token head has no tokens to teach under {mixing.kind}: use"
                    " supervision.kind=distillation (with distillation_share=1 it is ReLabel)"
                )
        if supervision.annotates_mixed_views and mixing.kind == "mixtoken":
            raise InputError(
                "supervision.same_mix mixes pixels, and mixtoken exchanges embeddings, which no"
                " annotator sees: use mixing.kind=cutmix or mixup"
            )
        self.seed = seed
        self.total_epochs = total_epochs
        self.annotator = annotator
        self.token_head_chunk = token_head_chunk
        self.losses = self._losses
        self.normalize = Normalize(mean, std)  # uint8 [B, 3, H, W] to the student's input
        self.register_buffer("class_weights", class_weights, persistent=False)
        if not supervision.teaches_tokens and self._student.heads != "tokens":
            # nothing teaches the token heads: they must not drift by weight decay alone
            for head in self._student.token_heads:
                head.requires_grad_(False)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """How the student may predict: the published rule first."""
        return self.supervision.rules_of(self._student.tokens_name_classes and not self.multi_label)

    @property
    def _student(self) -> Student:
        return cast(Student, self.student)

    def compile(self, **options: Any) -> None:
        """Compile all that computes; what draws random numbers and looks up labels stays as it is."""
        self.losses = torch.compile(self._losses, **options)

    def forward(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Named losses of one part, scalars; "loss" is the one to minimize."""
        images, annotated = batch.images, batch.target
        mix = draw_mix(self.mixing, len(images), self.mixing_grid, step, self.seed)
        mix = None if mix is None else mix.to(images.device)
        mixed = mix if self.supervision.annotates_mixed_views else None
        if annotated is None and self.annotator is not None:
            shown = images if batch.clean is None else batch.clean
            if mixed is not None:
                images, shown = (mixed(x.float(), channels_last=False) for x in (images, shown))
            annotated = self._annotate(shown)
        moment = Moment(
            step.epoch,
            self.total_epochs,
            lambda: generator(self.seed, _TOKENS, step.update, step.part),
        )
        labels = batch.labels
        targets = self.supervision.targets(labels, annotated, self.num_classes, moment, batch.more)
        if mixed is not None:  # the annotator's targets are of the mixed images already
            theirs = self.supervision.class_distribution(
                labels[mixed.partner], annotated, self.num_classes
            )
            own = theirs.lerp(targets.class_target, mixed.lam[:, None])
            targets = targets._replace(class_target=own)
        return self.losses(
            images,
            targets,
            mix if mixed is None else None,
            None if self.class_weights is None else self.class_weights[batch.labels],
        )

    def _losses(
        self, images: Tensor, targets: Targets, mix: Mix | None, weights: Tensor | None
    ) -> dict[str, Tensor]:
        output = DenseOutput(*self._student.forward_tokens(self.normalize(images), mix))
        head, *more_heads = self._student.token_heads
        return self.supervision.losses(
            output,
            targets,
            mix,
            more_heads=more_heads if targets.more else (),
            weights=weights,
            multi_label=self.multi_label,
            head=head,
            chunk=self.token_head_chunk,
        )

    @torch.no_grad()
    def _annotate(self, images: Tensor) -> TokenTarget:
        assert self.annotator is not None
        assert isinstance(self.supervision, AnnotatedMethod)
        label_maps = self.annotator(images)
        views = [View.identity()] * len(label_maps)
        supervision = self.supervision.fitted(label_maps[0])
        return token_targets(
            label_maps, views, self.grid, supervision.target_kind, supervision.smoothing
        ).to(images.device)


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
    whole_pairs = size + size % 2  # an odd part must not begin in the middle of a pair
    whole = Mix.draw(
        whole_pairs * step.parts,
        grid,
        kind=kind,
        alpha=alpha,
        per_sample=mixing.per_sample,
        generator=random,
    )
    start = step.part * whole_pairs
    share = whole.share[start : start + size] if mixing.per_sample else whole.share
    return Mix(whole.partner[:size].clamp(max=size - 1), share, whole.level)
