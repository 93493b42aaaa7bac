"""Weights from files: read without running any code in them, fitted to the model at hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import Tensor, nn

from tokenlabel.errors import InputError
from tokenlabel.models.dense import DenseModel, timm_model

__all__ = ["build_from", "fitted_to", "load_weights", "read_state_dict"]

_BACKBONE = "backbone."


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The weights in a safetensors file or a pickled checkpoint, by parameter name.

    Of a training checkpoint the averaged weights are taken (`state_dict_ema`, `model_ema`), else
    `state_dict` or `model`, else the whole. Prefixes left by wrappers (`module.`, `_orig_mod.`) are
    taken off. Nothing in the file is executed: a pickle that would need it raises InputError.
    """
    if not Path(path).is_file():
        raise InputError(f"no checkpoint at {path}")
    try:
        state = load_state_dict(str(path), weights_only=True)
    except (RuntimeError, AttributeError, EOFError, KeyError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as a checkpoint: {_refusal(path)}") from error
    weights = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not weights:
        raise InputError(f"{path} holds no weights")
    return weights


def _refusal(path: str | Path) -> str:
    try:
        wanted = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:
        return "it is damaged, of another kind, or needs to run code, which is never done"
    if wanted:
        return f"it needs to run {', '.join(wanted)}, which is never done; ask for safetensors"
    return "it does not hold a dictionary of weights"


def load_weights(model: nn.Module, path: str | Path) -> list[str]:
    """Load a checkpoint into a timm model or a `DenseModel`; returns the names not filled from it.

    Either kind of model takes either kind of file. Position embeddings are resized to the model's
    grid (by timm's own rule for its family). Only heads may stay as they are: those of another
    class count, and those that the file has not got. Any other difference raises InputError with
    the names, and the model is left untouched.
    """
    of_backbone, others = _parts(read_state_dict(path))
    if not isinstance(model, DenseModel):
        return _fill(model, fitted_to(of_backbone, model), path)
    fitted = fitted_to(of_backbone, model.backbone)
    return _fill(model, {_BACKBONE + key: value for key, value in fitted.items()} | others, path)


def build_from(
    path: str | Path, name: str, img_size: int | tuple[int, int] | None = None
) -> nn.Module:
    """The timm model `name` with a checkpoint's weights, its class count and its image size.

    Another `img_size` resizes the position embeddings.
    """
    state, _ = _parts(read_state_dict(path))
    with torch.device("meta"):
        template: Any = timm_model(name, {})
    arguments: dict[str, Any] = {"img_size": img_size or _trained_size(state, template)}
    for head in _head_names(template):
        if (weight := state.get(f"{head}.weight")) is not None:
            arguments["num_classes"] = weight.shape[0]
    model = timm_model(name, arguments)
    load_weights(model, path)
    return model


def _trained_size(state: dict[str, Tensor], template: Any) -> tuple[int, int] | None:
    """(height, width) of the square images whose positions `state` holds; None for the nominal."""
    positions, wanted = state.get("pos_embed"), getattr(template, "pos_embed", None)
    if positions is None or wanted is None or positions.shape == wanted.shape or wanted.ndim != 3:
        return None
    rows, cols = template.patch_embed.grid_size
    side = math.isqrt(positions.shape[1] - (wanted.shape[1] - rows * cols))
    height, width = template.patch_embed.patch_size
    return side * height, side * width


def _parts(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A student's state dict as its backbone's and the rest; a plain model's is all backbone."""
    backbone = {k.removeprefix(_BACKBONE): v for k, v in state.items() if k.startswith(_BACKBONE)}
    others = {k: v for k, v in state.items() if not k.startswith(_BACKBONE)}
    return (backbone, others) if backbone else (others, {})


def fitted_to(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """The family's own preparation of a state dict: resized positions, renamed old parameters."""
    for cls in type(backbone).__mro__:
        prepare = getattr(sys.modules[cls.__module__], "checkpoint_filter_fn", None)
        if prepare is not None:
            prepared: dict[str, Tensor] = prepare(state, backbone)
            return prepared
    return state


def _fill(model: nn.Module, state: dict[str, Tensor], path: str | Path) -> list[str]:
    own, heads = model.state_dict(), _head_names(model)

    def in_head(key: str) -> bool:
        return any(key.startswith(head + ".") for head in heads)

    usable = {
        key: value
        for key, value in state.items()
        if key in own and (value.shape == own[key].shape or not in_head(key))
    }
    wrong = [
        f"{key} is {tuple(value.shape)}, not {tuple(own[key].shape)}"
        for key, value in usable.items()
        if value.shape != own[key].shape
    ]
    absent = [key for key in own if key not in usable]
    wrong += [f"{key} is missing" for key in absent if not in_head(key)]
    wrong += [f"{key} is unknown" for key in state if key not in own and not in_head(key)]
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise InputError(f"{path} does not fit the model: {'; '.join(wrong[:4])}{more}")
    model.load_state_dict(usable, strict=False)
    return absent


def _head_names(model: nn.Module) -> set[str]:
    """Names of a model's class and token heads, present or not."""
    backbone: Any = model.backbone if isinstance(model, DenseModel) else model
    prefix = _BACKBONE if isinstance(model, DenseModel) else ""
    classifier = backbone.get_classifier()
    modules = classifier if isinstance(classifier, tuple) else (classifier,)
    named = getattr(backbone, "pretrained_cfg", {}).get("classifier") or ()
    names = {named} if isinstance(named, str) else set(named)
    names |= {name for name, module in backbone.named_modules() if module in modules}
    return {"aux_head", *(prefix + name for name in {*names, "aux_head"})}
