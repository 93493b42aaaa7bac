"""A backbone with a segmentation head: UPerNet or FCN, and the auxiliary FCN beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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
    auxiliary: Tensor


class SegmentationModel(nn.Module):
    """Pixel-wise class scores from any timm backbone (see `Pyramid` for what it needs).

    - `head`: "upernet" (Xiao et al. 2018) or "fcn" (Long et al. 2015) on the last map; both have an
      auxiliary FCN head on the third map, of which training makes a second loss.
    - `channels`: width of the heads. Published: 256 for LV-ViT-S and -M, 512 for -L.
    - `dropout`: probability of dropping a channel before each classifier.

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
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pyramid = Pyramid(backbone, head)
        self.decode_head = _head(head, self.pyramid.channels, channels)
        self.auxiliary_head = _auxiliary_head(self.pyramid.channels, channels)
        for part in (self.pyramid.side_layers, self.decode_head, self.auxiliary_head):
            if part is not None:
                initialize_convolutions(part)
        for part in (self.decode_head, self.auxiliary_head):
            part.classifier = _Classifier(channels, num_classes, dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores [B, C, H, W] of normalized images [B, 3, H, W]."""
        return self._scores(self.decode_head, self._maps(images), images)

    def forward_heads(self, images: Tensor) -> SegmentationOutput:
        """The scores of both heads, for training."""
        maps = self._maps(images)
        return SegmentationOutput(
            self._scores(self.decode_head, maps, images),
            self._scores(self.auxiliary_head, maps, images),
        )

    def _maps(self, images: Tensor) -> list[Tensor]:
        bottom, right = (-side % self.pyramid.divisor for side in images.shape[2:])
        maps: list[Tensor] = self.pyramid(F.pad(images, (0, right, 0, bottom)))
        return maps

    def _scores(self, head: nn.Module, maps: list[Tensor], images: Tensor) -> Tensor:
        """A head's scores at the resolution of the images."""
        height, width = images.shape[2:]
        divisor = self.pyramid.divisor
        padded = (height + -height % divisor, width + -width % divisor)
        scores = F.interpolate(head(maps), padded, mode="bilinear", align_corners=False)
        return scores[:, :, :height, :width]

    # -- what timm's optimizers ask ----------------------------------------------------------------

    def no_weight_decay(self) -> set[str]:
        backbone: Any = self.pyramid.backbone
        spared = backbone.no_weight_decay() if hasattr(backbone, "no_weight_decay") else set()
        return {f"pyramid.backbone.{name}" for name in spared}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:  # noqa: ARG002
        """The depth of a parameter: the backbone's own, and one more layer for all on top of it."""
        ids = self.pyramid.layer_ids()
        return lambda name: ids.get(name.removeprefix("pyramid.backbone."), float("inf"))


def _head(kind: HeadKind, inputs: tuple[int, ...], channels: int) -> nn.Module:
    """A head from transformers, whose classifier is yet to be put in."""
    if kind == "upernet":
        return UperNetHead(UperNetConfig(hidden_size=channels), inputs)  # type: ignore[no-untyped-call]
    config = UperNetConfig(auxiliary_channels=channels, auxiliary_num_convs=_FCN_CONVOLUTIONS)
    return UperNetFCNHead(config, inputs, in_index=_LAST_LEVEL)


def _auxiliary_head(inputs: tuple[int, ...], channels: int) -> nn.Module:
    config = UperNetConfig(auxiliary_channels=channels)
    return UperNetFCNHead(config, inputs, in_index=_AUXILIARY_LEVEL)


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
