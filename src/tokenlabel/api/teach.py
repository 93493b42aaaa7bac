"""`tl.teach`: a classifier of your own classes, to annotate with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tokenlabel.choices import PRECISION, Arithmetic, Cache, Device
from tokenlabel.errors import InputError

if TYPE_CHECKING:
    from tokenlabel.training.callbacks import Callback
    from tokenlabel.training.taught import Taught

__all__ = ["teach"]

_SMOOTHING = 0.1  # of the cross-entropy


def teach(
    *,
    data: str,
    output: str | Path,
    model: str = "resnet50",
    split: str | None = None,
    pretrained: bool = True,
    weights: str | Path | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    in_chans: int = 3,
    channels: Sequence[int] = (),
    epochs: int = 20,
    batch_size: int = 64,
    opt: str = "adamw",
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    loss: Literal["ce", "mse"] = "ce",
    smoothing: float | None = None,
    stop_epoch: int | None = None,
    patience: int | None = None,
    temperature: bool = False,
    min_scale: float = 0.35,
    hflip: bool = True,
    holdout: float = 0.1,
    folds: int = 1,
    group: str | None = None,
    seed: int = 0,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
    workers: int = 0,
    cache: Cache = "auto",
    allow_changed: Iterable[str] = (),
    callbacks: Iterable[Callback] = (),
) -> Taught:
    """Fine-tune a timm classifier on labeled images and write it to `output`, as timm writes models.

    Random crops of at least `min_scale` of the image, flips, timm's optimizer `opt`, a cosine schedule
    with one warm-up epoch (`stop_epoch` ends it early). It starts from `weights` (a file, a run's or a
    taught model's folder) or the model's pretrained ones. A share `holdout` of each class is not
    trained on and tells the accuracy; with `temperature` the logits are divided by the one that suits
    these images.

    `folds` trains so many classifiers, each without its fold of the images (`group`, a CSV column or a
    regular expression for keys, keeps images together), so that `annotate` labels every image by the one
    that did not see it.

    `in_chans` is how many channels the images have, or how many of them, `channels` by number, it sees.

    The run lies in `output`/run; the same call goes on where it was stopped, bit for bit.
    `allow_changed` and `callbacks` are those of `tokenlabel.training.engine.fit`. Raises InputError.
    """
    from tokenlabel.models import weights_or
    from tokenlabel.runs.recipe_file import from_mapping
    from tokenlabel.training.folds import teach_folds
    from tokenlabel.training.taught import teach as teach_one
    from tokenlabel.training.teach_recipe import TeachRecipe

    content = {
        "seed": seed,
        "data": {
            "train": data,
            "train_split": split,
            "holdout": holdout,
            "folds": folds,
            "group": group,
            "channels": list(channels) or None,
            "workers": workers,
            "cache": cache,
        },
        "model": {
            "name": model,
            "image_size": image_size,
            "in_chans": in_chans,
            "pretrained": pretrained,
            "weights": None if weights is None else str(weights),
            "kwargs": dict(model_kwargs or {}),
        },
        "loss": loss,
        "smoothing": _SMOOTHING if smoothing is None else smoothing,
        "stop_epoch": stop_epoch,
        "temperature": temperature,
        "min_scale": min_scale,
        "hflip": 0.5 * hflip,
        "optimizer": {"name": opt, "lr": lr, "weight_decay": weight_decay},
        "schedule": {
            "batch_size": batch_size,
            "epochs": epochs,
            "warmup_epochs": min(1, epochs - 1),
            "cooldown_epochs": 0,
            "warmup_lr": lr / 100,
            "min_lr": 0.0,
            "patience": patience,
        },
        "engine": {
            "device": device,
            "device_batch": batch_size,
            "precision": PRECISION[dtype],
            "channels_last": True,
        },
    }
    if group is not None and folds == 1:
        raise InputError("group keeps images together in folds: give folds too")
    if loss == "mse" and smoothing:
        raise InputError("smoothing is of the cross-entropy: leave it out, or use loss ce")
    if stop_epoch is not None and stop_epoch > epochs:
        raise InputError(
            f"stop_epoch {stop_epoch} is after the last of {epochs} epochs: lower it, or leave it out"
        )
    recipe = from_mapping(content, "teach", TeachRecipe)
    run = teach_folds if folds > 1 else teach_one
    with weights_or("give --weights FILE, or start from random weights (--no-pretrained)"):
        return run(recipe, output, callbacks=callbacks, allow_changed=allow_changed)
