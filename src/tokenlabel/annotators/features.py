"""Patch features: what a vision network makes of every cell of an image, before any head."""

from __future__ import annotations

from typing import Any

import torch
from timm.models import get_model_input_config
from torch import Tensor, nn

from tokenlabel.errors import InputError
from tokenlabel.models import layout

__all__ = ["PatchFeatures"]


class PatchFeatures(nn.Module):
    """Images [B, C, H, W] to features [B, h, w, D]: the last map of a network.

    The network is a timm model with or without a head, the image tower of an open_clip model, or any
    module that maps images to features [B, D, h, w].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        tower = getattr(network, "visual", network)
        self.tower: Any = getattr(tower, "trunk", tower)  # of open_clip, where the tower is timm's
        self._found: layout.Probe | None = None
        if hasattr(self.tower, "forward_features"):
            try:
                self._found = layout.probe(self.tower, layout.image_shape(self.tower))
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise InputError(f"{self._no_map()} ({reason})") from error

    def forward(self, images: Tensor) -> Tensor:
        found = self._found
        if found is not None and found.final_in_features:
            features = self.tower.forward_features(images)
            return found.final.as_map(features, images.shape[2:])
        if hasattr(self.tower, "forward_intermediates"):
            maps = self.tower.forward_intermediates(images, indices=1, intermediates_only=True)
            last = maps["image_intermediates"] if isinstance(maps, dict) else maps
            features = last[-1]
        else:
            features = self.tower(images)
        if not isinstance(features, Tensor) or features.ndim != 4:
            raise InputError(self._no_map())
        return features.permute(0, 2, 3, 1)

    @torch.inference_mode()
    def shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """(h, w, D) for images of `size` = (height, width) pixels. Raises InputError for one cell."""
        like = next(self.tower.parameters(), torch.zeros(()))  # a module may have none
        channels = get_model_input_config(self.tower)["input_size"][0]
        blank = torch.zeros(1, channels, *size, device=like.device, dtype=like.dtype)
        try:
            _, h, w, d = self.eval()(blank).shape
        except InputError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"{type(self.tower).__name__} takes no images of {size[0]}x{size[1]} pixels: {reason}"
            ) from error
        if h * w == 1:
            raise InputError(
                f"{type(self.tower).__name__} makes one cell of an image of {size[0]}x{size[1]} pixels:"
                " give a larger --image-size"
            )
        return h, w, d

    def _no_map(self) -> str:
        return (
            f"{type(self.tower).__name__} has no patch features: choose a model with a map of them, or"
            " write module:function of your own that returns one from images to features [B, D, h, w]"
        )
