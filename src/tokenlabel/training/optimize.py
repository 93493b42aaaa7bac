"""Optimizer, learning-rate schedule and weight average from a recipe: timm's, put together."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import Muon as TimmMuon
from timm.optim import (
    create_optimizer_v2,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn

from tokenlabel.errors import InputError, nearest
from tokenlabel.runs.recipe import BaseRecipe, Ema, Optimizer
from tokenlabel.training.muon import Muon

__all__ = ["create_ema", "create_optimizer", "create_schedule", "parameter_groups"]


def create_optimizer(
    student: nn.Module, recipe: Optimizer, dtype: torch.dtype = torch.float32
) -> torch.optim.Optimizer:
    """timm's optimizer over `parameter_groups`; `dtype` is that of Muon's matrix products.

    Raises InputError for an unknown name.
    """
    if recipe.name not in list_optimizers():
        raise InputError(
            f"unknown optimizer {recipe.name!r}{nearest(recipe.name, list_optimizers())}"
        )
    options: dict[str, Any] = {"betas": recipe.betas, "eps": recipe.eps}
    if next(student.parameters()).is_cuda and recipe.name in ("adam", "adamw", "sgd"):
        options["fused"] = True
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        parameter_groups(student, recipe),
        opt=recipe.name,
        lr=recipe.lr,
        momentum=recipe.momentum,
        **{key: value for key, value in options.items() if value is not None},
    )
    return Muon(optimizer.param_groups, dtype) if type(optimizer) is TimmMuon else optimizer


def parameter_groups(student: nn.Module, recipe: Optimizer) -> list[dict[str, Any]]:
    """The student's parameters by weight decay and, with layer decay, by depth.

    timm's rules for the backbone, which knows its layers and what weight decay must spare; what the
    student adds to it (heads) is the uppermost layer.
    """
    backbone: Any = getattr(student, "backbone", student)
    spared = backbone.no_weight_decay() if hasattr(backbone, "no_weight_decay") else ()
    if recipe.layer_decay is None:
        groups = param_groups_weight_decay(
            backbone, recipe.weight_decay, no_weight_decay_list=spared
        )
    else:
        groups = param_groups_layer_decay(
            backbone,
            recipe.weight_decay,
            no_weight_decay_list=spared,
            layer_decay=recipe.layer_decay,
        )
    grouped = {id(p) for group in groups for p in group["params"]}
    added = [p for p in student.parameters() if p.requires_grad and id(p) not in grouped]
    for decay, members in (
        (recipe.weight_decay, [p for p in added if p.ndim > 1]),
        (0.0, [p for p in added if p.ndim <= 1]),
    ):
        if members:
            groups.append({"params": members, "weight_decay": decay})
    if recipe.decay_all:
        groups = [group | {"weight_decay": recipe.weight_decay} for group in groups]
    return list(groups)


def create_schedule(
    optimizer: torch.optim.Optimizer, recipe: BaseRecipe, updates_per_epoch: int
) -> Scheduler:
    """A schedule by updates; `step_update(n)` sets the rate of update n whatever came before."""
    schedule, course = recipe.schedule, recipe.schedule.course(updates_per_epoch)
    created, _ = create_scheduler_v2(
        optimizer,
        sched=schedule.decay,
        num_epochs=course.decay,
        warmup_epochs=course.warmup,
        warmup_lr=schedule.warmup_lr,
        min_lr=schedule.min_lr,
        cooldown_epochs=course.cooldown,
        decay_rate=1.0,  # the power of "poly"
        step_on_epochs=False,
        updates_per_epoch=1,  # timm's epochs are updates here
    )
    return created


def create_ema(student: nn.Module, recipe: Ema) -> ModelEmaV3 | None:
    """The moving average of all floating-point state, batch-norm statistics included."""
    if recipe.decay is None:
        return None
    device = torch.device("cpu") if recipe.on_cpu else None
    return ModelEmaV3(student, decay=recipe.decay, use_warmup=recipe.warmup, device=device)
