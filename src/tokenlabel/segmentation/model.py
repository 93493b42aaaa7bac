"""A backbone with a segmentation head: UPerNet or FCN with the auxiliary FCN beside it, or linear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.errors import InputError
from tokenlabel.segmentation.pyramid import Pyramid, initialize_convolutions
from tokenlabel.segmentation.recipe import HeadKind

try:
    from transformers.models.upernet import UperNetConfig
    from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead
except ImportError:
    raise InputError(
        "segmentation takes its heads from transformers: pip install 'tokenlabel[seg]'"
    ) from None

__all__ = ["SegmentationModel", "SegmentationOutput"]

_AUXILIARY_LEVEL = 2  # the third map
_LAST_LEVEL = 3
_FCN_CONVOLUTIONS = 2


class SegmentationOutput(NamedTuple):
    """Class scores of every pixel, by both heads: [B, C, H, W] of images [B, 3, H, W]."""

    logits: Tensor
    auxiliary: Tensor | None  # linear heads have no other beside them


class SegmentationModel(nn.Module):
    """Pixel-wise class scores from any timm backbone (see `Pyramid` for what it needs).

    - `head`: "upernet" (Xiao et al. 2018) or "fcn" (Long et al. 2015) on the last map; both have an
      auxiliary FCN head on the third map, of which training makes a second loss. "linear" and
      "linear4" are a batch norm and a 1x1 convolution on the last map or on four (Oquab et al. 2023).
    - `channels`: width of the heads. Published: 256 for LV-ViT-S and -M, 512 for -L. Linear heads are
      as wide as their maps.
    - `dropout`: probability of dropping a channel before each classifier.

    A training with class weights w [C] teaches w p instead of the probabilities p, so rare classes
    are predicted more often than they occur. `log_weights`, saved with the model, holds log w;
    `forward` subtracts it `logit_adjustment` times (Menon et al. 2021): 0 leaves the scores as they
    were trained, 1 makes them those of p. `forward_heads` never does.

    Images [B, 3, H, W] of any size; sides that the backbone's stride does not divide are padded with
    zeros (the mean color) to the right and bottom.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        head: HeadKind = "upernet",
        channels: int = 512,
        dropout: float = 0.1,
        logit_adjustment: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.logit_adjustment = num_classes, logit_adjustment
        self.log_weights: Tensor
        self.register_buffer("log_weights", torch.zeros(num_classes))
        self.register_load_state_dict_pre_hook(_without_log_weights)  # type: ignore[no-untyped-call]
        self.pyramid = Pyramid(backbone, head)
        inputs = self.pyramid.channels
        linear = head in ("linear", "linear4")
        self.decode_head = _LinearHead(inputs) if linear else _head(head, inputs, channels)
        self.auxiliary_head = None if linear else _auxiliary_head(inputs, channels)
        for part in (self.pyramid.side_layers, self.decode_head, self.auxiliary_head):
            if part is not None:
                initialize_convolutions(part)
        width = sum(inputs) if linear else channels
        for part in (self.decode_head, self.auxiliary_head):
            if part is not None:
                part.classifier = _Classifier(width, num_classes, dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores [B, C, H, W] of normalized images [B, 3, H, W]."""
        maps = self.pyramid.enlarged(self.features(images))
        scores = self._scores(self.decode_head, maps, _size(images))
        return scores - self.logit_adjustment * self.log_weights[:, None, None]

    def forward_heads(self, images: Tensor) -> SegmentationOutput:
        """The scores of both heads, for training."""
        return self.heads_on(self.features(images), _size(images))

    def features(self, images: Tensor) -> list[Tensor]:
        """What a frozen backbone needs to say of images only once: its maps, before the heads."""
        bottom, right = (-side % self.pyramid.divisor for side in images.shape[2:])
        return self.pyramid.features(F.pad(images, (0, right, 0, bottom)))

    def heads_on(self, features: list[Tensor], size: tuple[int, int]) -> SegmentationOutput:
        """The scores of both heads on the `features` of images of `size` = (H, W)."""
        maps = self.pyramid.enlarged(features)
        auxiliary = self.auxiliary_head
        return SegmentationOutput(
            self._scores(self.decode_head, maps, size),
            None if auxiliary is None else self._scores(auxiliary, maps, size),
        )

    def _scores(self, head: nn.Module, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """A head's scores at the resolution of the images."""
        divisor = self.pyramid.divisor
        padded = [side + -side % divisor for side in size]
        scores = F.interpolate(head(maps), padded, mode="bilinear", align_corners=False)
        return scores[:, :, : size[0], : size[1]]

    # -- what timm's optimizers ask ----------------------------------------------------------------

    def no_weight_decay(self) -> set[str]:
        backbone: Any = self.pyramid.backbone
        spared = backbone.no_weight_decay() if hasattr(backbone, "no_weight_decay") else set()
        return {f"pyramid.backbone.{name}" for name in spared}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:  # noqa: ARG002
        """The depth of a parameter: the backbone's own, and one more layer for all on top of it."""
        ids = self.pyramid.layer_ids()
        return lambda name: ids.get(name.removeprefix("pyramid.backbone."), float("inf"))


def _without_log_weights(
    model: nn.Module, state: dict[str, Tensor], prefix: str, *_others: object
) -> None:
    """Weights of other code, and of earlier versions, have none: their scores stay as they are."""
    state.setdefault(f"{prefix}log_weights", torch.zeros_like(model.get_buffer("log_weights")))


def _head(kind: HeadKind, inputs: tuple[int, ...], channels: int) -> nn.Module:
    """A head from transformers, whose classifier is yet to be put in."""
    if kind == "upernet":
        return UperNetHead(UperNetConfig(hidden_size=channels), inputs)  # type: ignore[no-untyped-call]
    config = UperNetConfig(auxiliary_channels=channels, auxiliary_num_convs=_FCN_CONVOLUTIONS)
    return UperNetFCNHead(config, inputs, in_index=_LAST_LEVEL)


def _auxiliary_head(inputs: tuple[int, ...], channels: int) -> nn.Module:
    config = UperNetConfig(auxiliary_channels=channels)
    return UperNetFCNHead(config, inputs, in_index=_AUXILIARY_LEVEL)


class _LinearHead(nn.Module):
    """A batch norm on maps of any sizes, resized to the finest; the classifier is yet to be put in."""

    def __init__(self, inputs: Sequence[int]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(sum(inputs))
        self.classifier: nn.Module

    def forward(self, maps: list[Tensor]) -> Tensor:
        finest = max((x.shape[2:] for x in maps), key=lambda size: size[0])
        resized = [
            F.interpolate(x, finest, mode="bilinear", align_corners=False)
            if x.shape[2:] != finest
            else x
            for x in maps
        ]
        scores: Tensor = self.classifier(self.norm(torch.cat(resized, 1)))
        return scores


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


class _Classifier(nn.Conv2d):
    """A 1x1 convolution after dropping channels."""

    def __init__(self, channels: int, num_classes: int, dropout: float) -> None:
        super().__init__(channels, num_classes, 1)
        self.dropout = dropout
        nn.init.normal_(self.weight, std=0.01)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.dropout2d(input, self.dropout, self.training))
