"""The parts of LV-ViT that timm's `VisionTransformer` has not: the stem and the residual divisor."""

from __future__ import annotations

from typing import Any

from timm.layers import PatchEmbed
from timm.models import register_notrace_function
from torch import Tensor, nn

from tokenlabel.errors import InputError

__all__ = ["ConvStem", "Divide"]


class ConvStem(PatchEmbed):  # type: ignore[misc]
    """Three convolutions at half resolution, then one of stride `patch_size / 2` to `embed_dim`.

    The stem's patches overlap, so mixing its outputs is not the same as mixing pixels.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        stem_width: int,
        device: Any = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            img_size, patch_size, in_chans, embed_dim, device=device, dtype=dtype, **kwargs
        )
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.conv1 = nn.Conv2d(in_chans, stem_width, 7, 2, padding=3, bias=False, **factory)
        self.bn1 = nn.BatchNorm2d(stem_width, **factory)
        self.conv2 = nn.Conv2d(stem_width, stem_width, 3, padding=1, bias=False, **factory)
        self.bn2 = nn.BatchNorm2d(stem_width, **factory)
        self.conv3 = nn.Conv2d(stem_width, stem_width, 3, padding=1, bias=False, **factory)
        self.bn3 = nn.BatchNorm2d(stem_width, **factory)
        self.proj = nn.Conv2d(stem_width, embed_dim, patch_size // 2, patch_size // 2, **factory)
        self.relu = nn.ReLU(inplace=True)

    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        if patch_size is not None:
            raise InputError("LV-ViT's stem fixes the patch size: build another model")
        super().set_input_size(img_size)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] to patches: [B, h * w, D], or [B, h, w, D] with `output_fmt` NHWC."""
        check_size(
            x.shape[2], x.shape[3], self.img_size if self.strict_img_size else None, self.patch_size
        )
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(x)))
        x = self.proj(x).permute(0, 2, 3, 1)
        return x.flatten(1, 2) if self.flatten else x


@register_notrace_function  # type: ignore[untyped-decorator]
def check_size(
    height: int, width: int, built_for: tuple[int, int] | None, patch_size: tuple[int, int]
) -> None:
    """Raise InputError for images that the stem does not take."""
    if built_for is not None and (height, width) != built_for:
        raise InputError(
            f"got images of {height}x{width} pixels, the model was built for {built_for}: "
            "build it with that img_size or with dynamic_img_size=True"
        )
    if height % patch_size[0] != 0 or width % patch_size[1] != 0:
        raise InputError(
            f"image sides must be divisible by the patch size {patch_size[0]}, got {height}x{width}"
        )


class Divide(nn.Module):
    """Divide a residual branch by a constant (paper, section 3.3: "re-scaling the residuals")."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        return x / self.divisor

    def extra_repr(self) -> str:
        return str(self.divisor)
