"""`DenseModel`: any timm backbone as a student that scores every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from timm.layers import to_2tuple, trunc_normal_
from torch import Tensor, nn

from tokenlabel.errors import InputError
from tokenlabel.mixing import Mix
from tokenlabel.models import layout
from tokenlabel.models.factory import build_model
from tokenlabel.output import DenseOutput

__all__ = ["DenseModel", "create_model"]

Heads = Literal["class+tokens", "class", "tokens"]
TokenClasses = int | Sequence[int | None] | None


class DenseModel(nn.Module):
    """A timm model with a linear head on the tokens of its final map, and MixToken inside.

    - `backbone`: a timm model or its name; further keywords go to `build_model`. Class logits
      are the backbone's own: its `forward_head`, or, of a backbone that owns a token head (LV-ViT,
      VOLO) and adds it there, its class head alone. Distilled models have two class heads; their
      logits are the mean of both in training as in evaluation, as timm has it outside of its
      distilled training: the class loss reaches both heads.
    - `num_classes`: None keeps the backbone's; another count gives it new heads. 0: it has no class
      head, and class logits are [B, 0].
    - `token_classes`: what the tokens name, where it is not the classes: so many visual words. A
      sequence gives the tokens one head each, in which None stands for the classes; the first is
      `token_head`, whose logits are the "token" map.
    - `heads`: "class+tokens"; "tokens" has no class head, class logits are the mean over tokens of
      the token logits; "class" has no token head, the "token" map is the class logits on a 1 x 1
      grid (an ordinary classifier; with the teacher's pooled class target this is ReLabel).

    Layout, stride and patch embedding are found by running the backbone once without data. A
    backbone that owns an `aux_head` keeps it as its token head. Parameters that no output depends on
    do not train: their `requires_grad` is switched off. That of all others is left as it is, so a
    frozen backbone stays frozen.

    Raises InputError when the backbone has no map of tokens, with the reason.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        num_classes: int | None = None,
        *,
        token_classes: TokenClasses = None,
        heads: Heads = "class+tokens",
        **timm_arguments: Any,
    ) -> None:
        super().__init__()
        if isinstance(backbone, str):
            backbone = build_model(backbone, num_classes=num_classes, **timm_arguments)
        elif timm_arguments:
            raise InputError(
                f"{', '.join(timm_arguments)}: goes with a model's name; this backbone is built"
            )
        model: Any = backbone
        layout.require_tokens(model)
        if num_classes not in (None, model.num_classes):
            model.reset_classifier(num_classes)
        self.backbone = model
        self.num_classes: int = model.num_classes
        self.heads = heads
        of_each = (token_classes,) if isinstance(token_classes, int | None) else token_classes
        self.token_classes: tuple[int | None, ...] = tuple(of_each)
        self._require_heads()
        self.image_shape = layout.image_shape(model)
        found = _look(model, self.image_shape)
        self._final, self._final_in_features = found.final, found.final_in_features
        self._embedding = found.embedding
        self._mix: Mix | None = None  # the mix of the forward pass under way
        if self._embedding is not None:
            embedding = layout.patch_embedding(model)
            assert embedding is not None
            embedding.register_forward_hook(self._mix_embedding)
        self.aux_head = self._new_token_head()
        self.more_heads = nn.ModuleList(map(self._linear, self.token_classes[1:]))
        self._grids: dict[tuple[int, int], tuple[int, int]] = {}
        self._freeze_unused_parameters()

    # -- what it computes ------------------------------------------------------------------------

    @property
    def token_head(self) -> nn.Module:
        """Map from token features [..., D] to token logits [..., C]: linear, if there is one."""
        head: nn.Module = self.backbone.aux_head if self.aux_head is None else self.aux_head
        return head

    @property
    def token_heads(self) -> list[nn.Module]:
        """`token_head` and those of the other `token_classes`, which map the same features."""
        return [self.token_head, *self.more_heads]

    @property
    def tokens_name_classes(self) -> bool:
        """Whether the token logits are of the classes, so that they too say what an image shows."""
        return self.heads != "class" and self.token_classes[0] is None and self.num_classes > 0

    def forward(self, images: Tensor, mix: Mix | None = None) -> DenseOutput:
        """Images [B, 3, H, W] to class logits and token logits, in training and evaluation alike.

        With a `mix`, images are mixed on the way in (patch embeddings, or pixels where the mix says
        so or the model has no patch embedding). Class logits are those of the mixed image; tokens
        are exchanged back, so that each stands where its own image's token was.
        """
        logits, features = self.forward_tokens(images, mix)
        return DenseOutput(logits, self.token_head(features))

    def forward_tokens(self, images: Tensor, mix: Mix | None = None) -> tuple[Tensor, Tensor]:
        """Class logits [B, C] and token features [B, h, w, D], before `token_head`.

        For a loss that applies the token head to a few images at a time.
        """
        features, tokens = self._mixed_features(images, mix)
        if self.num_classes == 0:
            logits = tokens.new_zeros(tokens.shape[0], 0)  # len() would fix a program's batch size
        elif self.heads == "tokens":
            logits = self.token_head(tokens.mean((1, 2)))
        else:
            logits = self._class_logits(features)
        if self.heads == "class":
            tokens = logits[:, None, None]
        elif mix is not None and mix.exchanges:
            tokens = mix(tokens, channels_last=True)
        return logits, tokens

    def grid(self, image_size: int | tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the token map for images of (height, width) or square ones."""
        size = to_2tuple(image_size)
        if size not in self._grids:
            output = self._trial(layout.on_meta(self), size)
            self._grids[size] = (output.tokens.shape[1], output.tokens.shape[2])
        return self._grids[size]

    # -- inside ----------------------------------------------------------------------------------

    def _mixed_features(self, images: Tensor, mix: Mix | None) -> tuple[Any, Tensor]:
        """The backbone's features and its final map [B, h, w, D], of mixed images."""
        if mix is None:
            return self._features(images)
        if self.heads == "class" and mix.level != "pixels":
            raise InputError(
                "a student without token head has no tokens to exchange: use cutmix or mixup"
            )
        if mix.level == "pixels" or self._embedding is None:
            return self._features(mix(images, channels_last=False))
        self._mix = mix
        try:
            return self._features(images)
        finally:
            self._mix = None

    def _class_logits(self, features: Any) -> Tensor:
        """What the backbone's class head says, without the token head that it may own."""
        backbone: Any = self.backbone
        if getattr(backbone, "aux_head", None) is not None:
            pooled = backbone.forward_head(features, pre_logits=True)
            logits: Tensor = backbone.get_classifier()(pooled)
            return logits
        answer: Tensor | tuple[Tensor, Tensor] = backbone.forward_head(features)
        if isinstance(answer, tuple):  # of a distilled model in timm's distilled training
            return torch.stack(answer).mean(0)
        return answer

    def _features(self, images: Tensor) -> tuple[Any, Tensor]:
        if self._final_in_features:
            final = features = self.backbone.forward_features(images)
        else:
            features, (final,) = self.backbone.forward_intermediates(images, indices=1)
        return features, self._final.as_map(final, images.shape[2:])

    def _mix_embedding(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Any:
        """Forward hook of the patch embedding: the place of MixToken (paper, section 3.2)."""
        if self._mix is None or self._embedding is None:
            return output
        size = inputs[0].shape[2:]
        if isinstance(output, tuple):  # (tokens, grid)
            return (self._embedding.mixed(output[0], self._mix, size), *output[1:])
        return self._embedding.mixed(output, self._mix, size)

    def _new_token_head(self) -> nn.Module | None:
        """A linear head on the final map; None where the backbone owns one that fits."""
        channels = self._final.channels
        own = getattr(self.backbone, "aux_head", None)
        if self.heads == "class":
            return nn.Identity()
        if (
            self.token_classes[0] is None
            and isinstance(own, nn.Linear)
            and (own.in_features, own.out_features) == (channels, self.num_classes)
        ):
            return None
        return self._linear(self.token_classes[0])

    def _linear(self, classes: int | None) -> nn.Linear:
        """A new token head of so many words, or (None) of the classes."""
        count = self.num_classes if classes is None else classes
        like = next(self.backbone.parameters())
        head = nn.Linear(self._final.channels, count, device=like.device, dtype=like.dtype)
        trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        return head

    def _require_heads(self) -> None:
        plain = self.token_classes == (None,) and self.num_classes > 0
        if not plain and self.heads != "class+tokens":
            raise InputError(
                f"heads={self.heads!r} has one set of classes: leave it out for visual words, for"
                " several token heads and where there are no classes"
            )
        if self.num_classes == 0 and None in self.token_classes:
            raise InputError("a student without classes needs token_classes: what its tokens name")

    def _trial(self, trial: nn.Module, size: tuple[int, int]) -> DenseOutput:
        """What a copy of this model on the meta device makes of images of `size`."""
        images = torch.empty(2, self.image_shape[0], *size, device="meta")
        try:
            output: DenseOutput = trial.train()(images)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"the model takes no images of {size[0]}x{size[1]} pixels: {reason}"
            ) from error
        return output

    def _freeze_unused_parameters(self) -> None:
        """Switch off parameters that no output depends on: distributed training waits for them."""
        with torch.inference_mode(False), torch.enable_grad():
            trial = layout.on_meta(self)
            for shadow in trial.parameters():
                shadow.requires_grad_(shadow.is_floating_point())  # frozen ones may be used
            images = torch.empty(2, *self.image_shape, device="meta")
            logits, features = trial.train().forward_tokens(images)
            heads = [head(features).sum() for head in trial.token_heads]
            torch.autograd.backward(logits.sum() + sum(heads))
        for parameter, shadow in zip(self.parameters(), trial.parameters(), strict=True):
            if shadow.grad is None:
                parameter.requires_grad_(False)


def create_model(
    name: str,
    num_classes: int = 1000,
    *,
    img_size: int | tuple[int, int] | None = None,
    token_classes: TokenClasses = None,
    heads: Heads = "class+tokens",
    pretrained: bool = False,
    **timm_arguments: Any,
) -> DenseModel:
    """A student by name (see `build_model`), for images of `img_size` (None: the nominal size).

    Convolutional models have no built-in size and take any.
    """
    arguments = timm_arguments | {"img_size": img_size, "pretrained": pretrained}
    return DenseModel(name, num_classes, token_classes=token_classes, heads=heads, **arguments)


def _look(model: nn.Module, image_shape: tuple[int, int, int]) -> layout.Probe:
    try:
        return layout.probe(model, image_shape)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{type(model).__name__} cannot score tokens: {reason}") from error
