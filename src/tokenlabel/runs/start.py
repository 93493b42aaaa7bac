"""Weights to start from: which model they are of, where their folder says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenlabel.errors import InputError
from tokenlabel.runs.checkpoints import is_checkpoint
from tokenlabel.runs.open import holds_run, open_run
from tokenlabel.text import read_json

__all__ = ["Start", "start_of"]

# in timm's folders: what depends on the images, not on the model alone
_OF_THE_IMAGES = ("img_size", "in_chans", "num_classes")


@dataclass(frozen=True)
class Start:
    """The model of a folder's weights, with the images that it takes."""

    name: str
    kwargs: dict[str, Any]
    image_size: int | tuple[int, int] | None = None
    in_chans: int = 3
    mean: tuple[float, ...] | None = None  # None: the model's own
    std: tuple[float, ...] | None = None
    channels: tuple[int, ...] | None = None


def start_of(weights: str | Path) -> Start | None:
    """The model of the weights in a run's folder or in one that timm wrote; None for all else.

    Raises InputError where a folder holds another kind of run, or names no model.
    """
    folder = Path(weights)
    if holds_run(folder) or is_checkpoint(folder):
        try:
            recipe = open_run(folder).recipe
        except InputError as error:
            raise InputError(f"{folder} holds no run of `tokenlabel train`: {error}") from None
        model = recipe.model
        return Start(
            model.name,
            model.kwargs,
            model.image_size,
            model.in_chans,
            model.mean,
            model.std,
            recipe.data.channels,
        )
    if (folder / "config.json").is_file():
        return _of_timm_folder(folder / "config.json")
    return None


def _of_timm_folder(file: Path) -> Start:
    written = read_json(file, kind=dict)
    name, arguments = written.get("architecture"), written.get("model_args", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise InputError(
            f"{file} names no timm model: give a folder of `tokenlabel train` or `tokenlabel export`,"
            " or a file of weights"
        )
    kept = {key: value for key, value in arguments.items() if key not in _OF_THE_IMAGES}
    return Start(name, kept, **_input_of(written.get("pretrained_cfg")))


def _input_of(config: Any) -> dict[str, Any]:
    """Size, channels, mean and std that a timm folder's configuration names; the last three of other
    images than RGB."""
    try:
        channels, height, width = config["input_size"]
        mean, std = tuple(config["mean"]), tuple(config["std"])
    except (TypeError, KeyError, ValueError):
        return {}
    size = {"image_size": height if height == width else (height, width)}
    if channels == 3:
        return size
    return {**size, "in_chans": channels, "mean": mean, "std": std}
