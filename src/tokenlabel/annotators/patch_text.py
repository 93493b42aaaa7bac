"""Class scores of every patch of an image, by an image-text model and texts of the classes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.annotators.cells import CellScores
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.errors import InputError

__all__ = ["PatchTextScores", "patch_grid", "tower_inputs"]


class PatchTextScores(nn.Module):
    """Images [B, 3, H, W] to scaled cosine similarities [B, h, w, C] of patches and class texts.

    A patch's feature is what the model would say of the image if its last attention looked at this
    patch alone: the value path of that attention (Zhou et al., "Extract Free Dense Labels from CLIP",
    2022, section 3.2). It keeps its place and lies in the space of the texts.

    - open_clip's own vision transformers: the values of the last layer, without its mixing of places;
    - timm's towers (SigLIP pools by attention): each patch through the tower's own pooling.

    Scores are the model's own logits, with its bias where it has one (SigLIP).
    """

    def __init__(self, model: Any, texts: Tensor) -> None:
        super().__init__()
        visual = model.visual
        self.visual = visual
        self.texts = nn.Parameter(texts, requires_grad=False)  # [C, D], unit length
        self.scale = float(model.logit_scale.detach().exp())
        bias = getattr(model, "logit_bias", None)
        self.bias = 0.0 if bias is None else float(bias.detach())
        self.cells: CellScores | None = None
        if hasattr(visual, "trunk"):
            self.cells = CellScores(visual.trunk)
            if not self.cells.head_reads_patches or getattr(visual.head, "pool", None) is not None:
                raise _no_patches()
        elif not hasattr(visual, "transformer") or getattr(visual, "attn_pool", None) is not None:
            raise _no_patches()

    def forward(self, images: Tensor) -> Tensor:
        patches = self._values(images) if self.cells is None else self._pooled(images)
        return self.scale * F.normalize(patches, dim=-1) @ self.texts.T + self.bias

    def _pooled(self, images: Tensor) -> Tensor:
        """Features [B, h, w, D] of a timm tower: each cell through its pooling and projection."""
        assert self.cells is not None
        cells = self.cells(images)
        features: Tensor = self.visual.head(cells.flatten(0, 2))
        return features.reshape(*cells.shape[:3], -1)

    def _values(self, images: Tensor) -> Tensor:
        """Features [B, h, w, D] of open_clip's own vision transformer."""
        visual: Any = self.visual
        caught: list[Tensor] = []
        last = visual.transformer.resblocks[-1]
        handle = last.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        try:
            visual(images)
        finally:
            handle.remove()
        tokens = caught[0] if visual.transformer.batch_first else caught[0].transpose(0, 1)
        attention = last.attn
        width = attention.embed_dim
        values = F.linear(
            last.ln_1(tokens), attention.in_proj_weight[-width:], attention.in_proj_bias[-width:]
        )
        patches: Tensor = visual.ln_post(attention.out_proj(values)[:, 1:])
        if visual.proj is not None:
            patches = patches @ visual.proj
        rows, cols = visual.grid_size
        return patches.reshape(len(images), rows, cols, -1)


def tower_inputs(visual: Any) -> Preprocessing:
    """What the image tower of an open_clip model is shown."""
    settings = visual.preprocess_cfg
    return Preprocessing(
        image_size=tuple(visual.image_size),
        crop_pct=1.0,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        interpolation="bilinear" if settings["interpolation"] == "bilinear" else "bicubic",
    )


def patch_grid(visual: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches of an image tower's input of `size` = (height, width) pixels."""
    if not hasattr(visual, "trunk"):
        rows, cols = getattr(visual, "grid_size", (1, 1))
        return int(rows), int(cols)
    info = getattr(visual.trunk, "feature_info", None) or [{"reduction": size[0]}]
    cell = max(int(level["reduction"]) for level in info)
    return size[0] // cell, size[1] // cell


def _no_patches() -> InputError:
    return InputError(
        "this image-text model has no patches that its texts can be held against: use a plain vision"
        " transformer (ViT-B-16) or a SigLIP model (ViT-B-16-SigLIP)"
    )
