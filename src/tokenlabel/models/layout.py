"""Where the tokens lie in what a timm backbone computes, found by looking at what it computes.

A backbone is run once on the `meta` device (shapes without data) when a student is built, so that
`forward` never has to guess. Nothing here depends on a model's name.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import Format, PatchDropout, PatchEmbed, to_2tuple
from timm.models import get_model_input_config
from torch import Tensor, nn

from tokenlabel.errors import InputError
from tokenlabel.mixing import Mix

__all__ = [
    "MapLayout",
    "Probe",
    "image_shape",
    "on_meta",
    "patch_embedding",
    "patch_size",
    "probe",
    "require_tokens",
    "require_whole_patches",
]


@dataclass(frozen=True)
class MapLayout:
    """The order of a feature map's axes, its leading non-patch tokens and its stride in pixels."""

    order: str  # NLC, NHWC or NCHW
    channels: int
    stride: tuple[int, int]
    prefix: int = 0

    def grid(self, image_size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the map of an image (height, width); partial patches are padded."""
        return -(-image_size[0] // self.stride[0]), -(-image_size[1] // self.stride[1])

    def as_map(self, x: Tensor, image_size: Sequence[int]) -> Tensor:
        """The tokens of `x` as a map [B, h, w, D]."""
        if self.order == "NLC":
            return x[:, self.prefix :].reshape(x.shape[0], *self.grid(image_size), self.channels)
        return x if self.order == "NHWC" else x.permute(0, 2, 3, 1)

    def mixed(self, x: Tensor, mix: Mix, image_size: Sequence[int]) -> Tensor:
        """`x`, which has no prefix, with its tokens mixed, in the layout it came in."""
        if self.order == "NLC":
            return mix(self.as_map(x, image_size), channels_last=True).flatten(1, 2)
        return mix(x, channels_last=self.order == "NHWC")


@dataclass(frozen=True)
class Probe:
    """What one look at a backbone tells."""

    final: MapLayout
    final_in_features: bool  # else `forward_features` holds no map and `forward_intermediates` must
    embedding: MapLayout | None  # None: no patch embedding


def require_tokens(backbone: nn.Module) -> None:
    """Raise InputError for a module that cannot have one token at each place of an image."""
    name = type(backbone).__name__
    for needed in ("num_classes", "forward_features", "forward_intermediates", "forward_head"):
        if not hasattr(backbone, needed):
            raise InputError(
                f"{name} is not a student: timm's image models have `{needed}`, it has not"
            )
    if any(isinstance(module, PatchDropout) for module in backbone.modules()):
        raise InputError(f"{name} drops patches in training, but each has a label: leave it off")


def probe(backbone: nn.Module, image_shape: tuple[int, int, int]) -> Probe:
    """Find the final map and the patch embedding's output of a timm model.

    Whatever the backbone raises on images of this size is raised here.
    """
    shapes = on_meta(backbone).train()
    embedding = patch_embedding(shapes)
    embedded: list[Any] = []
    if embedding is not None:
        embedding.register_forward_hook(lambda _module, _args, output: embedded.append(output))
    images, size = torch.empty(2, *image_shape, device="meta"), image_shape[1:]
    with torch.no_grad():
        features = shapes.forward_features(images)
        _, (last,) = shapes.forward_intermediates(images, indices=1)  # always NCHW
    final = _choose(_readings(features, size, tuple(last.shape[2:])), shapes)
    embed = None
    if embedded:
        tokens = embedded[0][0] if isinstance(embedded[0], tuple) else embedded[0]
        embed = _choose(_readings(tokens, size), embedding)
    return Probe(
        final=final or MapLayout("NCHW", last.shape[1], _stride(size, last.shape[2:])),
        final_in_features=final is not None,
        embedding=embed,
    )


def _readings(x: Any, size: Sequence[int], grid: tuple[int, int] | None = None) -> list[MapLayout]:
    """The ways to read `x` as a map of `grid`, or if that is not known, of square patches."""
    if not isinstance(x, Tensor) or x.ndim not in (3, 4):
        return []
    if x.ndim == 3:
        side = (size[0] * size[1] / x.shape[1]) ** 0.5
        rows, cols = grid or (round(size[0] / side), round(size[1] / side))
        prefix = x.shape[1] - rows * cols
        fits = prefix >= 0 if grid else prefix == 0
        return [MapLayout("NLC", x.shape[2], _stride(size, (rows, cols)), prefix)] if fits else []
    readings = []
    for order, channels, shape in (
        ("NCHW", x.shape[1], tuple(x.shape[2:])),
        ("NHWC", x.shape[3], tuple(x.shape[1:3])),
    ):
        stride = _stride(size, shape)
        if shape == grid or (grid is None and stride[0] == stride[1]):
            readings.append(MapLayout(order, channels, stride))
    return readings


def _choose(readings: list[MapLayout], module: Any) -> MapLayout | None:
    """The one reading; of two (a cube of equal sides reads both ways) the one the module names."""
    if len(readings) < 2:
        return readings[0] if readings else None
    named = Format(getattr(module, "output_fmt", "NCHW")).value
    return next(reading for reading in readings if reading.order == named)


def _stride(image_size: Sequence[int], grid: Sequence[int]) -> tuple[int, int]:
    return -(-image_size[0] // grid[0]), -(-image_size[1] // grid[1])


def image_shape(backbone: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width of the images a timm model was built for."""
    channels, height, width = get_model_input_config(backbone)["input_size"]
    built_for = getattr(patch_embedding(backbone), "img_size", None)
    return (channels, *(to_2tuple(built_for) if built_for else (height, width)))


def patch_embedding(backbone: nn.Module) -> nn.Module | None:
    """The module that turns an image into its first tokens, if the model has a single one."""
    embed, stem = getattr(backbone, "patch_embed", None), getattr(backbone, "stem", None)
    if isinstance(embed, nn.Module) and not isinstance(embed, nn.ModuleList):
        return embed
    return stem if isinstance(stem, PatchEmbed) else None


def patch_size(backbone: nn.Module) -> tuple[int, int]:
    """(height, width) in pixels of what becomes a first token; (1, 1) without a patch embedding."""
    height, width = to_2tuple(getattr(patch_embedding(backbone), "patch_size", 1))
    return height, width


def require_whole_patches(backbone: nn.Module) -> None:
    """Raise InputError where patches leave a rest of the image: tokens would not be where labels are."""
    for side, length in zip(image_shape(backbone)[1:], patch_size(backbone), strict=True):
        if side % length:
            below = side // length * length
            raise InputError(
                f"an image size of {side} is not a multiple of the model's patches of {length} pixels:"
                f" choose {below} or {below + length}"
            )


def on_meta(module: nn.Module) -> Any:
    """A copy of a module that has shapes and no data."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(module, memo)
