"""Optimiser, learning-rate schedule and weight average from a recipe: timm's, put together."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn

from tokenlabel.errors import InputError, nearest
from tokenlabel.training.recipe import Ema, Optimizer, Recipe

__all__ = ["create_ema", "create_optimizer", "create_schedule"]


def create_optimizer(student: nn.Module, recipe: Optimizer) -> torch.optim.Optimizer:
    """timm's optimiser; weight decay spares what timm's rules and the student's own list spare.

    Raises InputError for an unknown name.
    """
    if recipe.name not in list_optimizers():
        raise InputError(
            f"unknown optimiser {recipe.name!r}{nearest(recipe.name, list_optimizers())}"
        )
    options: dict[str, Any] = {"betas": recipe.betas, "eps": recipe.eps}
    on_gpu = next(student.parameters()).is_cuda
    if on_gpu and recipe.name in ("adam", "adamw", "sgd"):
        options["fused"] = True
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        student,
        opt=recipe.name,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        layer_decay=recipe.layer_decay,
        **{key: value for key, value in options.items() if value is not None},
    )
    return optimizer


def create_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, updates_per_epoch: int
) -> Scheduler:
    """A schedule by updates; `step_update(n)` sets the rate of update n whatever came before."""
    schedule = recipe.schedule
    created, _ = create_scheduler_v2(
        optimizer,
        sched=schedule.decay,
        num_epochs=schedule.epochs,
        warmup_epochs=schedule.warmup_epochs,
        warmup_lr=schedule.warmup_lr,
        min_lr=schedule.min_lr,
        cooldown_epochs=schedule.cooldown_epochs,
        decay_rate=1.0,  # the power of "poly"
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )
    return created


def create_ema(student: nn.Module, recipe: Ema) -> ModelEmaV3 | None:
    """The moving average of all floating-point state, batch-norm statistics included."""
    if recipe.decay is None:
        return None
    device = torch.device("cpu") if recipe.on_cpu else None
    return ModelEmaV3(student, decay=recipe.decay, use_warmup=recipe.warmup, device=device)
