"""LV-ViT: a vision transformer with a convolutional stem, scaled-down residuals and a token head.

Paper: "All Tokens Matter: Token Labeling for Training Better Vision Transformers", section 3.3 and
table 1. What is neither in this file nor in `tokenlabel.models.stem` is timm's `VisionTransformer`:
fused attention, resized position embeddings, gradient checkpointing, intermediate features,
layer-decay groups. Parameter names and shapes equal the released checkpoints'.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from timm.layers import get_device_dtype, resample_abs_pos_embed, trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tokenlabel.errors import InputError
from tokenlabel.models.stem import ConvStem, Divide
from tokenlabel.output import TOKEN_SHARE

__all__ = ["LVViT"]


class LVViT(VisionTransformer):  # type: ignore[misc]
    """A timm `VisionTransformer` with LV-ViT's stem, residual divisor and token head.

    As a timm model it maps images [B, 3, H, W] to logits [B, C] by the published test-time rule:
    those of `head` plus half of the best token's, which `aux_head` scores (timm's VOLO does the
    same). `DenseModel` keeps the two apart. `img_size` may be an int or (height, width), divisible by
    `patch_size`; with `dynamic_img_size=True` any divisible size is taken at run time. `norm_eps` is
    that of every LayerNorm: 1e-5 in the released classifiers, 1e-6 in the released segmentation
    backbones. Further arguments are `VisionTransformer`'s: `class_token=False` with
    `global_pool="avg"` gives a student without class token.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 384,
        depth: int = 16,
        num_heads: int = 6,
        mlp_ratio: float = 3.0,
        stem_width: int = 64,
        residual_divisor: float = 2.0,
        norm_eps: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        if patch_size % 2 or size[0] % patch_size or size[1] % patch_size:
            raise InputError(
                f"LV-ViT needs an even patch size that divides both image sides, got patch_size "
                f"{patch_size} for {size[0]}x{size[1]} pixels"
            )
        if embed_dim % num_heads:
            raise InputError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}")
        defaults: dict[str, Any] = {
            "qkv_bias": False,
            "norm_layer": partial(nn.LayerNorm, eps=norm_eps),
            "embed_layer": partial(ConvStem, stem_width=stem_width),
        }
        super().__init__(
            img_size=size,
            patch_size=patch_size,
            in_chans=in_chans,
            num_classes=num_classes,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            **(defaults | kwargs),
        )
        if residual_divisor != 1:
            for block in self.blocks:
                block.ls1, block.ls2 = Divide(residual_divisor), Divide(residual_divisor)
        if self.cls_token is not None:
            trunc_normal_(self.cls_token, std=0.02)
        self.token_share = TOKEN_SHARE  # an attribute, which TorchScript can read
        self.aux_head = self._new_aux_head()

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens [B, 1 + N, D] to logits [B, C] of class and best token, or to the pooled features."""
        pooled: Tensor = self.head_drop(self.fc_norm(self.pool(x)))
        if pre_logits:
            return pooled
        logits: Tensor = self.head(pooled)
        if self.num_classes == 0 or self.global_pool == "":
            return logits
        tokens = self.aux_head(x[:, self.num_prefix_tokens :])
        fused: Tensor = logits + self.token_share * tokens.amax(1)
        return fused

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Add positions to patches [B, N, D], or [B, h, w, D] of any size; prefix tokens go first.

        Positions of another grid are resized by the released rule, bicubic without antialiasing.
        """
        pos_embed = self.pos_embed
        if self.dynamic_img_size:
            if pos_embed is not None:
                pos_embed = resample_abs_pos_embed(
                    pos_embed,
                    [x.shape[1], x.shape[2]],
                    self.patch_embed.grid_size,
                    0 if self.no_embed_class else self.num_prefix_tokens,
                    antialias=False,
                )
            x = x.flatten(1, 2)
        if pos_embed is not None and self.no_embed_class:
            x = x + pos_embed
        if self.reg_token is not None:
            x = torch.cat([self.reg_token.expand(x.shape[0], -1, -1), x], dim=1)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        if pos_embed is not None and not self.no_embed_class:
            x = x + pos_embed
        embedded: Tensor = self.pos_drop(x)
        return embedded

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """New class and token heads for `num_classes` classes (0: none)."""
        super().reset_classifier(num_classes, global_pool)
        self.aux_head = self._new_aux_head()

    def _new_aux_head(self) -> nn.Module:
        if self.num_classes == 0:
            return nn.Identity()
        head = nn.Linear(self.embed_dim, self.num_classes, **get_device_dtype(self))
        trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        return head


def checkpoint_filter_fn(state: dict[str, Tensor], model: LVViT) -> dict[str, Tensor]:
    """Fit a state dict to the model's grid: the class position is kept, others resized (bicubic).

    The released rule (no antialiasing). A file does not say how its positions lie: a square is
    assumed, and InputError raised where they do not form one.
    """
    positions, own = state.get("pos_embed"), model.pos_embed
    if positions is None or own is None or positions.shape == own.shape:
        return state
    prefix = model.num_prefix_tokens
    side = math.isqrt(positions.shape[1] - prefix)
    if side * side != positions.shape[1] - prefix:
        raise InputError(
            f"pos_embed has {positions.shape[1] - prefix} positions, no square grid to resize: "
            "load it into a model of the size that it was trained at"
        )
    resized = resample_abs_pos_embed(
        positions, model.patch_embed.grid_size, (side, side), prefix, antialias=False
    )
    return state | {"pos_embed": resized}


# -- the published sizes (paper, table 1) ----------------------------------------------------------


def _config(side: int = 224, crop_pct: float = 0.9) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, side, side),
        "fixed_input_size": True,
        "pool_size": None,
        "crop_pct": crop_pct,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "patch_embed.conv1",
        "classifier": ("head", "aux_head"),
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs(
    {
        "lvvit_t": _config(),
        "lvvit_s": _config(),
        "lvvit_m": _config(crop_pct=1.0),
        "lvvit_l": _config(288, crop_pct=1.0),
    }
)


def _build(variant: str, pretrained: bool, arguments: dict[str, Any], **size: Any) -> LVViT:
    model: LVViT = build_model_with_cfg(
        LVViT,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **(size | arguments),
    )
    return model


@register_model  # type: ignore[untyped-decorator]
def lvvit_t(pretrained: bool = False, **kwargs: Any) -> LVViT:
    """LV-ViT-T: 8.5 M parameters."""
    return _build(
        "lvvit_t",
        pretrained,
        kwargs,
        embed_dim=240,
        depth=12,
        num_heads=4,
        residual_divisor=1.0,
    )


@register_model  # type: ignore[untyped-decorator]
def lvvit_s(pretrained: bool = False, **kwargs: Any) -> LVViT:
    """LV-ViT-S: 26 M parameters."""
    return _build("lvvit_s", pretrained, kwargs, embed_dim=384, depth=16, num_heads=6)


@register_model  # type: ignore[untyped-decorator]
def lvvit_m(pretrained: bool = False, **kwargs: Any) -> LVViT:
    """LV-ViT-M: 56 M parameters."""
    return _build("lvvit_m", pretrained, kwargs, embed_dim=512, depth=20, num_heads=8)


@register_model  # type: ignore[untyped-decorator]
def lvvit_l(pretrained: bool = False, **kwargs: Any) -> LVViT:
    """LV-ViT-L: 150 M parameters."""
    return _build(
        "lvvit_l",
        pretrained,
        kwargs,
        embed_dim=768,
        depth=24,
        num_heads=12,
        stem_width=128,
        residual_divisor=3.0,
    )
