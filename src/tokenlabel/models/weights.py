"""Weights from files: read without running any code in them, fitted to the model at hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from timm.models import adapt_input_conv, get_model_input_config, load_state_dict
from torch import Tensor, nn

from tokenlabel.errors import InputError
from tokenlabel.models.layout import on_meta

__all__ = [
    "backbone_part",
    "fill",
    "first_weight",
    "fitted_to",
    "head_names",
    "load_weights",
    "read_state_dict",
]

_BACKBONE = "backbone."  # where a `DenseModel` keeps its timm model
_SHOWN = 4  # differences in a message


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The weights in a safetensors file or a pickled checkpoint, by parameter name.

    Of a training checkpoint the averaged weights are taken (`state_dict_ema`, `model_ema`), else
    `state_dict` or `model`, else the whole. Prefixes left by wrappers (`module.`, `_orig_mod.`) are
    taken off. Nothing in the file is executed: a pickle that would need it raises InputError, as does
    every other file that does not hold real numbers by name.
    """
    if not Path(path).is_file():
        raise InputError(f"no checkpoint at {path}")
    try:
        state = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # a foreign file can fail in every way
        raise InputError(f"{path} cannot be read as a checkpoint: {_refusal(path)}") from error
    if not isinstance(state, dict):
        raise InputError(f"{path} holds no weights by name, but {type(state).__name__}")
    weights = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not weights:
        raise InputError(f"{path} holds no weights")
    for key, value in weights.items():
        if not isinstance(key, str):
            raise InputError(f"{path} holds no weights by name: {key!r} is not a name")
        if value.is_complex() or value.is_quantized or value.layout != torch.strided:
            raise InputError(f"{path} cannot be used: {key} holds no plain real numbers")
    return weights


def _refusal(path: str | Path) -> str:
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:
        return "it is damaged, of another kind, or needs to run code, which tokenlabel never does"
    if unsafe:
        return (
            f"it needs to run {', '.join(unsafe)}, which tokenlabel never does; ask for safetensors"
        )
    return "it does not hold a dictionary of weights"


def load_weights(model: nn.Module, path: str | Path) -> list[str]:
    """Load a checkpoint into a timm model or a `DenseModel`; returns the names not filled from it.

    Either kind of model takes either kind of file. Position embeddings are resized to the model's
    grid (by timm's own rule for its family). Only heads may stay as they are: those of another
    class count, and those that the file has not got. Counters that torch itself does without (of
    batch norm) may be missing. Weights of RGB are fitted to a model of other channels, by timm's
    rule. Any other difference raises InputError with the names, and the model is left untouched.
    """
    state = read_state_dict(path)
    of_backbone = backbone_part(state)
    backbone = _wrapped(model)
    if backbone is None:
        return fill(model, fitted_to(of_backbone, model), path)
    fitted = fitted_to(of_backbone, backbone)
    student = {_BACKBONE + key: value for key, value in fitted.items()}
    if any(key.startswith(_BACKBONE) for key in state):
        student |= {key: value for key, value in state.items() if not key.startswith(_BACKBONE)}
    return fill(model, student, path)


def backbone_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The timm model's weights in a student's state dict; a plain model's are all its own."""
    inner = {k.removeprefix(_BACKBONE): v for k, v in state.items() if k.startswith(_BACKBONE)}
    return inner or state


def fitted_to(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """A state dict prepared for a model: its family's resized positions and renamed old parameters,
    and the first convolution of RGB images for the model's channels."""
    prepared = _prepared(state, backbone)
    key, channels = first_weight(backbone), get_model_input_config(backbone)["input_size"][0]
    if key in prepared and channels != 3 == prepared[key].shape[1]:
        return prepared | {key: adapt_input_conv(channels, prepared[key])}
    return prepared


def first_weight(backbone: nn.Module) -> str:
    """The name of the weights [D, C, h, w] that a timm model's images go through first; "" where it has
    no single one."""
    first = get_model_input_config(backbone)["first_conv"]
    return f"{first}.weight" if isinstance(first, str) else ""


def _prepared(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    for cls in type(backbone).__mro__:
        prepare = getattr(sys.modules[cls.__module__], "checkpoint_filter_fn", None)
        if prepare is not None:
            prepared: dict[str, Tensor] = prepare(state, backbone)
            return prepared
    return state


def fill(
    model: nn.Module, state: dict[str, Tensor], path: str | Path, *, spare_heads: bool = True
) -> list[str]:
    """Load a state dict that fits the model; returns the names that it does not fill.

    `spare_heads` lets class and token heads differ (see `load_weights`). Raises InputError with the
    names of all else that differs, and leaves the model untouched.
    """
    own = model.state_dict()
    heads = head_names(model) if spare_heads else set()

    def in_head(key: str) -> bool:
        return any(key.startswith(head + ".") for head in heads)

    usable = {
        key: value
        for key, value in state.items()
        if key not in own or value.shape == own[key].shape or not in_head(key)
    }
    misshapen = {k for k, v in usable.items() if k in own and v.shape != own[k].shape}
    # torch says what is missing, in a copy without data: its modules know what they can do without
    trial: nn.Module = on_meta(model).requires_grad_(False)
    fitting = {key: value for key, value in usable.items() if key not in misshapen}
    found = trial.load_state_dict(fitting, strict=False, assign=True)
    absent = [key for key in found.missing_keys if key not in misshapen]
    wrong = [
        f"{key} is {tuple(usable[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in misshapen
    ]
    wrong += [f"{key} is missing" for key in absent if not in_head(key)]
    wrong += [f"{key} is unknown" for key in found.unexpected_keys if not in_head(key)]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InputError(f"{path} does not fit the model: {'; '.join(wrong[:_SHOWN])}{more}")
    unknown = set(found.unexpected_keys)
    model.load_state_dict({k: v for k, v in usable.items() if k not in unknown}, strict=False)
    return absent


def head_names(model: nn.Module) -> set[str]:
    """Names of a model's class and token heads, present or not."""
    wrapped = _wrapped(model)
    backbone: Any = model if wrapped is None else wrapped
    prefix = "" if wrapped is None else _BACKBONE
    classifier = backbone.get_classifier() if hasattr(backbone, "get_classifier") else ()
    modules = classifier if isinstance(classifier, tuple) else (classifier,)
    named = (getattr(backbone, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = {named} if isinstance(named, str) else set(named)
    names |= {name for name, module in backbone.named_modules() if module in modules}
    return {"aux_head", "more_heads", *(prefix + name for name in {*names, "aux_head"})}


def _wrapped(model: nn.Module) -> nn.Module | None:
    """The timm model inside a student; None where `model` is one itself."""
    inner = getattr(model, "backbone", None)
    return inner if isinstance(inner, nn.Module) and hasattr(model, "forward_tokens") else None
