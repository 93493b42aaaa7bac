"""Crops and flips of many images of one size at once, where the images are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenlabel.geometry.render import Interpolation
from tokenlabel.geometry.view import View

__all__ = ["render_batch"]

_CUBIC = -0.5  # the parameter of the cubic filter, as in Pillow and in torch's antialiased resize


def render_batch(
    images: Tensor,
    views: Sequence[View],
    size: tuple[int, int],
    interpolation: Sequence[Interpolation],
) -> Tensor:
    """Pixels [B, C, h, w] of a view of each of `images` [B, C, H, W], of their type; `size` = (h, w).

    As `render` draws each view, of bytes to within two gray levels, on the device of the images. The
    views must be axis-aligned and stay within the image: crops and flips.
    """
    height, width = images.shape[2:]
    stages = torch.tensor([view.stages[0] for view in views], dtype=torch.float32)
    scale, start = stages[:, [4, 0]], stages[:, [5, 2]]  # of y and x
    ends = torch.stack([start, start + scale], 2).to(images.device, non_blocking=True)
    cubic = torch.tensor([kind == "bicubic" for kind in interpolation]).to(images.device)
    rows, cols = (
        _weights(ends[:, axis] * pixels, size[axis], pixels, cubic[:, None, None])
        for axis, pixels in enumerate((height, width))
    )
    with torch.autocast(images.device.type, enabled=False):
        across = images.float() @ cols[:, None].mT
        if images.dtype != torch.uint8:
            return (rows[:, None] @ across).clamp_(0, 255)
        return _whole_levels(rows[:, None] @ _whole_levels(across)).to(torch.uint8)


def _whole_levels(pixels: Tensor) -> Tensor:
    """Rounded to what a byte can hold, as the resize of bytes does between its two passes."""
    return pixels.add_(0.5).floor_().clamp_(0, 255)


def _weights(span: Tensor, shown: int, pixels: int, cubic: Tensor) -> Tensor:
    """Weights [B, shown, pixels] of an axis' pixels in those that are shown of `span` [B, 2].

    A span that ends before it starts is flipped. Pixels beside the span have no part in it.
    """
    step = (span[:, 1:] - span[:, :1]) / shown  # [B, 1], in pixels
    at = torch.arange(shown, device=span.device) + 0.5
    centers = torch.arange(pixels, device=span.device) + 0.5
    stretch = step.abs().clamp(min=1.0)[..., None]
    distance = ((centers - (span[:, :1] + at * step)[..., None]) / stretch).abs()
    low, high = span.amin(1)[:, None, None], span.amax(1)[:, None, None]
    weights = torch.where(cubic, _cubic(distance), (1 - distance).clamp(min=0))
    weights = weights * ((centers > low) & (centers < high))
    return weights / weights.sum(-1, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = _CUBIC * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
