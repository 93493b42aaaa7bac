"""Segmentation checkpoints: our own, and those in mmsegmentation's layout."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from tokenlabel.models.weights import fill, fitted_to, read_state_dict
from tokenlabel.segmentation.model import SegmentationModel

__all__ = ["from_mmsegmentation", "load_segmentation_weights"]

_BACKBONE = "pyramid.backbone."

# mmsegmentation's names, as found in released checkpoints, to ours; the first that fits
_RENAMES = (
    (r"^backbone\.side_layer([1-4])\.", lambda m: f"pyramid.side_layers.{int(m[1]) - 1}."),
    (r"^backbone\.", lambda _: _BACKBONE),
    (r"^((?:decode|auxiliary)_head)\.conv_seg\.", lambda m: f"{m[1]}.classifier."),
    (r"^((?:decode|auxiliary)_head\..*)\.bn\.", lambda m: f"{m[1]}.batch_norm."),
)


def load_segmentation_weights(model: SegmentationModel, path: str | Path) -> None:
    """Fill a model from a segmentation checkpoint of ours or of mmsegmentation's layout.

    Position embeddings are resized to the model's grid. Every other difference, heads included,
    raises InputError with the names and leaves the model untouched.
    """
    state = read_state_dict(path)
    if not any(key.startswith(_BACKBONE) for key in state):
        state = from_mmsegmentation(state)
    backbone = {k.removeprefix(_BACKBONE): v for k, v in state.items() if k.startswith(_BACKBONE)}
    rest = {k: v for k, v in state.items() if not k.startswith(_BACKBONE)}
    backbone = fitted_to(backbone, model.pyramid.backbone)
    state = rest | {_BACKBONE + key: value for key, value in backbone.items()}
    fill(model, state, path, spare_heads=False)


def from_mmsegmentation(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of mmsegmentation's layout under our names.

    `backbone.*`, `decode_head.{psp_modules,bottleneck,lateral_convs,fpn_convs,fpn_bottleneck,
    conv_seg}` (or FCN's `convs`) and `auxiliary_head.{convs,conv_seg}`; names that follow no rule
    stay as they are. Hierarchical backbones keep the names of the code they come from.
    """
    return {_renamed(key): value for key, value in state.items()}


def _renamed(key: str) -> str:
    for pattern, replacement in _RENAMES:
        key, found = re.subn(pattern, replacement, key)
        if found and not key.startswith(("decode_head", "auxiliary_head")):
            break
    return key
