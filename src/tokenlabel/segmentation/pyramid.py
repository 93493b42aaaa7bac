"""Four maps of falling resolution from any timm backbone, plain or hierarchical."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from tokenlabel.errors import InputError
from tokenlabel.models.layout import image_shape, on_meta
from tokenlabel.segmentation.recipe import HeadKind

__all__ = ["Pyramid", "initialize_convolutions"]

_LEVELS = 4
_LINEAR_MAPS: dict[HeadKind, int] = {"linear": 1, "linear4": _LEVELS}
_BLOCKS_BETWEEN = 3  # taps of a plain backbone, as published: blocks 6, 9, 12, 15 of LV-ViT-S
_UPERNET_WIDTH = 2048  # of the published fourth side layer
_FCN_WIDTH = 768


class Pyramid(nn.Module):
    """A timm backbone and, where all its blocks have one resolution, the published side layers.

    Maps images [B, 3, H, W], of sides divisible by `divisor`, to maps [B, channels[i], h, w].

    - hierarchical backbones give the deepest map at each of their four coarsest strides;
    - plain ones give every third block, counted from the last, through `side_layers`. For UPerNet
      these make strides 4, 8, 16, 16 of a stride of 16; for FCN the fourth comes out at stride 8.
      Backbones of finer patches are enlarged less: no map becomes finer than these (or the patches).
    - for linear heads there are no side layers: plain backbones give their last block or their last
      four, each behind the final norm (as DINOv2 is evaluated), hierarchical ones the last of their
      maps or all four.

    What the maps do not need (heads, final norm) is taken off the backbone. Raises InputError for a
    backbone that has neither kind of maps.
    """

    def __init__(self, backbone: nn.Module, head: HeadKind) -> None:
        super().__init__()
        shapes = _map_shapes(backbone)
        side = max(image_shape(backbone)[1:])
        strides = [_stride(side, max(shape[1:])) for shape in shapes]
        plain = len(set(strides)) == 1
        linear = _LINEAR_MAPS.get(head)
        if plain:
            taps = _last_taps(len(strides), linear) if linear else _plain_taps(len(strides))
        else:
            taps = _hierarchical_taps(strides, linear or _LEVELS)
        channels = [shapes[index][0] for index in taps]
        model: Any = backbone
        self.norm = plain and linear is not None
        self.indices = list(model.prune_intermediate_layers(taps, prune_norm=not self.norm))
        self.backbone = backbone
        self.side_layers = None
        if plain and not linear:
            self.side_layers = _side_layers(channels, head, strides[0])
            channels[-1] = _UPERNET_WIDTH if head == "upernet" else _FCN_WIDTH
        self.channels = tuple(channels)
        self.divisor = max(strides[index] for index in taps)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.enlarged(self.features(images))

    def features(self, images: Tensor) -> list[Tensor]:
        """The backbone's own maps."""
        backbone: Any = self.backbone
        maps: list[Tensor] = backbone.forward_intermediates(
            images, indices=self.indices, norm=self.norm, intermediates_only=True
        )
        return maps

    def enlarged(self, maps: list[Tensor]) -> list[Tensor]:
        """The backbone's maps through the side layers, if there are any."""
        if self.side_layers is None:
            return maps
        return [layer(x) for layer, x in zip(self.side_layers, maps, strict=True)]

    def layer_ids(self) -> dict[str, int]:
        """The depth of each backbone parameter, from 0, for layer-wise learning rates."""
        backbone: Any = self.backbone
        if not hasattr(backbone, "group_matcher"):
            raise InputError(
                f"{type(backbone).__name__} does not tell its layers apart: no layer decay"
            )
        ids: dict[str, int] = group_parameters(
            backbone, backbone.group_matcher(coarse=False), reverse=True
        )
        return ids


def _map_shapes(backbone: nn.Module) -> list[tuple[int, int, int]]:
    """(channels, height, width) of every intermediate map, from a run without data."""
    trial = on_meta(backbone)
    images = torch.empty(2, *image_shape(backbone), device="meta")
    try:
        maps = trial.forward_intermediates(images, norm=False, intermediates_only=True)
    except (AttributeError, TypeError) as error:
        raise InputError(
            f"{type(backbone).__name__} gives no intermediate maps, which segmentation needs:"
            " choose another backbone"
        ) from error
    return [(x.shape[1], x.shape[2], x.shape[3]) for x in maps]


def _stride(side: int, cells: int) -> int:
    """Pixels from one cell to the next. Where they do not divide the image, cells at its edge are
    rounded up or left out, and the stride is the power of two that is nearest.
    """
    return side // cells if side % cells == 0 else 2 ** round(math.log2(side / cells))


def _plain_taps(blocks: int) -> list[int]:
    step = min(_BLOCKS_BETWEEN, blocks // _LEVELS)
    if step == 0:
        raise InputError(f"a backbone of {blocks} blocks is too shallow: segmentation takes four")
    return [blocks - 1 - step * back for back in reversed(range(_LEVELS))]


def _last_taps(blocks: int, count: int) -> list[int]:
    return list(range(max(blocks - count, 0), blocks))


def _hierarchical_taps(strides: Sequence[int], count: int) -> list[int]:
    deepest = {stride: index for index, stride in enumerate(strides)}
    coarsest = sorted(deepest)[-count:]
    if len(coarsest) < count:
        raise InputError(
            f"the backbone has maps of strides {sorted(deepest)}: segmentation takes four strides,"
            " or a single one"
        )
    return [deepest[stride] for stride in coarsest]


def _side_layers(channels: Sequence[int], head: HeadKind, stride: int) -> nn.ModuleList:
    """The published side layers of a plain backbone (released code, `side_layer1` to `4`)."""
    first, second, third, fourth = channels
    to_four, to_eight = (min(-(-stride // goal), 16 // goal) for goal in (4, 8))
    if head == "upernet":
        return nn.ModuleList(
            [
                nn.Sequential(*_upsample(first, to_four), *_project(first, first)),
                nn.Sequential(*_upsample(second, to_eight), *_project(second, second)),
                nn.Sequential(*_project(third, third)),
                nn.Sequential(*_project(fourth, _UPERNET_WIDTH)),
            ]
        )
    return nn.ModuleList(
        [
            nn.Identity(),
            nn.Identity(),
            nn.Sequential(*_project(third, third)),
            nn.Sequential(*_upsample(fourth, to_eight), *_project(fourth, _FCN_WIDTH)),
        ]
    )


def _upsample(channels: int, factor: int) -> list[nn.Module]:
    if factor == 1:
        return []
    enlarge = nn.ConvTranspose2d(channels, channels, factor, stride=factor, bias=False)
    return [enlarge, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def _project(channels: int, out_channels: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, out_channels, 1, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def initialize_convolutions(module: nn.Module) -> None:
    """He initialization of every convolution; biases start at zero."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            fan_in = part.weight[0].numel() if isinstance(part, nn.Conv2d) else part.in_channels
            nn.init.normal_(part.weight, std=math.sqrt(2 / fan_in))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
