"""The one way to a model: built by timm, or by a function of the user's, with weights read into it.

Nothing here decides by a model's name or by the text of an exception: which arguments a family takes
is read from its constructor.
"""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_model_args
from torch import Tensor, nn

from tokenlabel.errors import InputError, nearest
from tokenlabel.models.reach import out_of_reach
from tokenlabel.models.weights import (
    backbone_part,
    first_weight,
    head_names,
    load_weights,
    read_state_dict,
)

__all__ = [
    "NoWeightsError",
    "build_from",
    "build_model",
    "load_weights",
    "read_state_dict",
    "weights_or",
    "with_any_size",
]

_TIMM_SOURCES = ("hf-hub", "hf_hub", "local-dir", "timm")  # timm's own prefixes of model names


class NoWeightsError(InputError):
    """A model's pretrained weights are not available; `reason` says why, in a few words."""

    def __init__(self, fault: str, reason: str, fix: str = "give a file of weights") -> None:
        super().__init__(fault, reason, fix)  # all of them: to unpickle it
        self.fault, self.reason, self.fix = fault, reason, fix

    def __str__(self) -> str:
        return f"{self.fault} ({self.reason}): {self.fix}"


@contextmanager
def weights_or(fix: str) -> Iterator[None]:
    """Let a NoWeightsError of this block end with `fix`: what the verb takes instead."""
    try:
        yield
    except NoWeightsError as error:
        raise NoWeightsError(error.fault, error.reason, fix) from error


def build_model(
    name: str,
    *,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    any_size: bool = False,
    drop_path: float = 0.0,
    **timm_arguments: Any,
) -> nn.Module:
    """A model, with random weights, timm's pretrained ones or those of a file.

    - `name`: a timm model; `hf-hub:owner/name`; `local-dir:FOLDER`, or a folder that timm wrote; or
      `module:function`, which is called for the model. A function gets `num_classes` and `img_size`
      where it takes them, and decides by itself about pretrained weights.
    - `num_classes`: None keeps the model's own.
    - `img_size`: a side, or (height, width), in pixels. Convolutional models of any size have no
      such argument and do not get it.
    - `pretrained`: timm's weights of that name (downloaded once), or the folder's.
    - `checkpoint`: a file of weights instead (see `load_weights`).
    - `any_size`: let the model take images of any size that its stride divides, where it can.
    - `drop_path`: rate of stochastic depth, of models that have it.

    Raises InputError where there is no such model, where it refuses its arguments, and where weights
    are missing or do not fit; NoWeightsError, which is one, where pretrained ones are not available.
    """
    required: dict[str, Any] = dict(timm_arguments)
    optional: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    if any_size:
        optional |= {"dynamic_img_size": True, "strict_img_size": False}
    if drop_path:
        optional["drop_path_rate"] = drop_path
    create = _function(name)
    if create is None:
        create = _timm_entry(name)
        required |= {"num_classes": num_classes, "pretrained": pretrained}
    elif num_classes is not None:
        optional["num_classes"] = num_classes
    try:
        model = _built(create, required, _named(create, optional))
    except InputError:
        raise
    except OSError as error:
        reason = _first_line(error).rstrip(".;")
        raise NoWeightsError(f"cannot get {name}", reason) from error
    except Exception as error:
        raise InputError(f"cannot build {name}: {_first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{name} returned {type(model).__name__}, which is not a model")
    if checkpoint is not None:
        load_weights(model, checkpoint)
    return model


def build_from(
    path: str | Path, name: str, img_size: int | tuple[int, int] | None = None
) -> nn.Module:
    """The model `name` with a checkpoint's weights, its class count, channels and image size.

    Another `img_size` resizes the position embeddings.
    """
    state = backbone_part(read_state_dict(path))
    with torch.device("meta"):
        template: Any = build_model(name)
    counts = [
        weight.shape[0]
        for head in sorted(head_names(template))
        if (weight := state.get(f"{head}.weight")) is not None
    ]
    first = state.get(first_weight(template))
    count = 3 if first is None else first.shape[1]
    channels: dict[str, Any] = {} if count == 3 else {"in_chans": count}
    return build_model(
        name,
        num_classes=counts[0] if counts else None,
        **channels,
        img_size=img_size or _trained_size(state, template),
        checkpoint=path,
    )


def with_any_size(model: nn.Module) -> nn.Module:
    """A copy of a timm model that takes images of any size; the model itself where none can be."""
    config: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    if "architecture" not in config or not _takes(type(model), "dynamic_img_size"):
        return model
    arguments = get_model_args(model) | {"dynamic_img_size": True}
    copy = build_model(config["architecture"], **arguments)
    copy.load_state_dict(model.state_dict())
    return copy.train(model.training)


# -- what is called, and with which arguments ------------------------------------------------------


def _timm_entry(name: str) -> Callable[..., nn.Module]:
    """`timm.create_model` of a name that exists."""
    if Path(name).is_dir():
        name = f"local-dir:{name}"
    listed = ":" not in name
    if listed and not timm.is_model(name) and Path(name).is_file():
        raise InputError(
            f"{name} is a file of weights: `tokenlabel convert --checkpoint {name} --model NAME --output"
            " FOLDER` makes a folder of it, which can be given instead"
        )
    if listed and not timm.is_model(name):
        raise InputError(
            f"timm has no model {name!r}{nearest(name, timm.list_models())}, and there is no"
            " such folder; `tokenlabel models` lists the models"
        )

    def create(**arguments: Any) -> nn.Module:
        if arguments["pretrained"] and (reason := out_of_reach(name)):
            raise NoWeightsError(f"no pretrained weights of {name}", reason)
        model: nn.Module = timm.create_model(name, **arguments)
        return model

    return create


def _function(name: str) -> Callable[..., nn.Module] | None:
    """The function that `module:function` names; None for names that are timm's."""
    module, _, function = name.partition(":")
    if not function or module in _TIMM_SOURCES or Path(name).is_dir():
        return None
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # a module beside the user's data; `python -m` has it already
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{name} is not a function: {_first_line(error)}; write module:function of a module that"
            " can be imported"
        ) from error
    if not callable(found):
        raise InputError(f"{name} is not a function: it cannot be called")
    entry: Callable[..., nn.Module] = found
    return entry


def _named(create: Callable[..., nn.Module], optional: dict[str, Any]) -> dict[str, Any]:
    """Of the optional arguments, those that the function itself can be called with."""
    parameters = inspect.signature(create).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return optional
    names = {p.name for p in parameters}
    return {key: value for key, value in optional.items() if key in names}


def _built(
    create: Callable[..., nn.Module], required: dict[str, Any], optional: dict[str, Any]
) -> nn.Module:
    """`create(**required, **optional)`, without the optional arguments that its class has not."""
    try:
        return create(**required, **optional)
    except TypeError:
        random_weights = {"pretrained": False} if "pretrained" in required else {}
        with torch.device("meta"):
            plain = create(**(required | random_weights))  # raises where `required` is at fault
        accepted = {key: value for key, value in optional.items() if _takes(type(plain), key)}
        if accepted == optional:
            raise
        return create(**required, **accepted)


def _takes(cls: type, argument: str) -> bool:
    """Whether a class's constructor has an argument, itself or through its **kwargs."""
    for ancestor in cls.__mro__:
        if "__init__" not in vars(ancestor):
            continue
        parameters = inspect.signature(vars(ancestor)["__init__"]).parameters
        if argument in parameters:
            return True
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return False
    return False


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _trained_size(state: dict[str, Tensor], template: Any) -> tuple[int, int] | None:
    """(height, width) of the square images whose positions `state` holds; None for the nominal."""
    positions, own = state.get("pos_embed"), getattr(template, "pos_embed", None)
    if positions is None or own is None or positions.shape == own.shape or own.ndim != 3:
        return None
    rows, cols = template.patch_embed.grid_size
    side = math.isqrt(positions.shape[1] - (own.shape[1] - rows * cols))
    height, width = template.patch_embed.patch_size
    return side * height, side * width
