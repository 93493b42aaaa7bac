"""What changes in the course of a run, and one update of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as dcp

from tokenlabel.errors import InputError
from tokenlabel.runs.checkpoints import State
from tokenlabel.runs.recipe import BaseRecipe
from tokenlabel.training.optimize import create_ema, create_optimizer, create_schedule
from tokenlabel.training.randomness import seed_everything
from tokenlabel.training.ranks import Ranks
from tokenlabel.training.task import Step

__all__ = ["DeviceBatch", "Trainer", "Update", "checkpoint_activations", "unfuse_attention"]

_MODEL = 0  # stream of random numbers: dropout, stochastic depth

_WHOLE = dcp.StateDictOptions(full_state_dict=True, cpu_offload=True)


class DeviceBatch(Protocol):
    """What the engine needs of a batch."""

    @property
    def keys(self) -> tuple[str, ...]: ...

    def first(self, count: int) -> DeviceBatch: ...

    def to(self, device: torch.device, non_blocking: bool = False) -> DeviceBatch: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Update:
    """What one update did."""

    losses: Mapping[str, Tensor]
    """This rank's mean of each named loss; scalars on the device."""
    gradient_norm: float
    """Before clipping, over all ranks."""
    skipped: bool
    """Whether the gradient was not finite, so that nothing was changed."""


class Trainer:
    """A task, its optimizer, schedule and weight average, on this rank.

    The task has a `student` (what is optimized, averaged, saved) and maps (batch, Step) to named
    scalar losses, each a mean over the images of the batch.
    """

    def __init__(
        self, task: nn.Module, recipe: BaseRecipe, ranks: Ranks, updates_per_epoch: int
    ) -> None:
        self.recipe, self.ranks = recipe, ranks
        self.student = cast(nn.Module, task.student)
        if recipe.engine.channels_last:
            self.student.to(memory_format=torch.channels_last)
        if ranks.device.type == "cpu" and ranks.precision != "fp32":
            unfuse_attention(self.student)
        # before distribution: a copy of a module that is already sharded cannot be made
        self.ema = create_ema(self.student.to(ranks.device), recipe.ema)
        if self.ema is not None and recipe.engine.sharding == "fsdp":
            ranks.shard(self.ema.module)
        if recipe.engine.activation_checkpointing:
            checkpoint_activations(self.student)
        if recipe.engine.compile:
            task.compile()
        self.task = ranks.distribute(task)
        products = torch.bfloat16 if ranks.precision == "bf16" else torch.float32
        self.optimizer = create_optimizer(self.student, recipe.optimizer, products)
        self.schedule = create_schedule(self.optimizer, recipe, updates_per_epoch)
        self.updates = 0  # made or skipped so far
        self.skipped = 0
        self.skipped_in_a_row = 0
        self._statistics = [b for b in self.student.buffers() if b.is_floating_point()]

    @property
    def lr(self) -> float:
        """The largest of the parameter groups' rates."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def update(self, batches: Sequence[Any], epoch: int) -> Update:
        """One optimizer step on this rank's share of the update's images, in equal batches.

        Every loss is a mean over a fixed number of images and tokens (a masked token counts as zero),
        never over what a batch happens to hold. So the mean over equal parts is the mean over the
        whole, and the gradient is the same however the batch is divided into ranks and passes.
        Batch-norm statistics alone see the single pass (or, synchronised, that pass of all ranks).
        """
        self.task.train()
        self.schedule.step_update(self.updates)
        before = [statistic.clone() for statistic in self._statistics]
        parts = self.ranks.count * len(batches)
        sums: dict[str, Tensor] = {}
        for index, batch in enumerate(batches):
            part = index * self.ranks.count + self.ranks.rank  # the loader's order
            step = Step(self.updates, epoch, part, parts)
            with self.ranks.gradients(self.task, reduced=index == len(batches) - 1):
                losses = self.losses(self.task, batch, step)
                self.ranks.backward(losses["loss"] / len(batches))
            for name, loss in losses.items():
                share = loss.detach() / len(batches)
                sums[name] = sums[name] + share if name in sums else share
        norm = self._apply_gradients()
        skipped = not math.isfinite(norm)
        if skipped:
            for statistic, old in zip(self._statistics, before, strict=True):
                statistic.copy_(old)  # the forward pass may have spoilt them
        elif self.ema is not None:
            self.ema.update(self.student, step=self.updates + 1)
        self.updates += 1
        self.skipped += skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        return Update(sums, norm, skipped)

    def losses(self, task: nn.Module, batch: Any, step: Step) -> dict[str, Tensor]:
        """What a task says of a batch; the same whenever it is asked with the same weights."""
        seed_everything(self.recipe.seed, _MODEL, step.update, step.part)
        with self.ranks.autocast():
            losses: dict[str, Tensor] = task(batch.to(self.ranks.device, non_blocking=True), step)
        return losses

    def _apply_gradients(self) -> float:
        """Clip and step unless the gradient is not finite; returns its norm.

        The gradients are those of all ranks, so all come to the same decision: one rank's NaN is
        everyone's after the reduction.
        """
        scaler = self.ranks.scaler
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        parameters = [p for p in self.student.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        value = float(self.ranks.whole(norm))
        if math.isfinite(value):
            if self.recipe.optimizer.clip is not None:
                nn.utils.clip_grads_with_norm_(parameters, self.recipe.optimizer.clip, norm)
            if scaler is None:
                self.optimizer.step()
            else:
                scaler.step(self.optimizer)
        if scaler is not None:
            scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return value

    @contextmanager
    def ema_on_device(self) -> Iterator[nn.Module]:
        """The average's module, for validation, on the device also where it is kept elsewhere."""
        assert self.ema is not None
        module = cast(nn.Module, self.ema.module)
        home = next(module.parameters()).device
        yield module.to(self.ranks.device)
        module.to(home)

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> State:
        """All of it, independent of the number of ranks; complete on the first rank only."""
        scaler = self.ranks.scaler
        state: State = {
            "model": dcp.get_model_state_dict(self.student, options=_WHOLE),
            "optimizer": dcp.get_optimizer_state_dict(self.student, self.optimizer, options=_WHOLE),
            "progress": {
                "updates": self.updates,
                "skipped": self.skipped,
                "skipped_in_a_row": self.skipped_in_a_row,
                "scaler": None if scaler is None else scaler.state_dict(),
            },
        }
        if self.ema is not None:
            state["ema"] = dcp.get_model_state_dict(self.ema.module, options=_WHOLE)
        return state

    def state_bytes(self) -> int:
        """About what `state` will take on disk: optimizers keep up to two numbers a parameter."""
        weights, trained = (
            sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            for tensors in (self.student.state_dict().values(), self.student.parameters())
        )
        return (1 if self.ema is None else 2) * weights + 2 * trained

    def load(self, state: State) -> None:
        progress = state["progress"]
        dcp.set_model_state_dict(self.student, state["model"], options=_WHOLE)
        if self.ema is not None:
            dcp.set_model_state_dict(self.ema.module, state["ema"], options=_WHOLE)
        # rates, decay and the like are the recipe's, which may have changed them by name
        own = [{k: v for k, v in g.items() if k != "params"} for g in self.optimizer.param_groups]
        dcp.set_optimizer_state_dict(
            self.student, self.optimizer, state["optimizer"], options=_WHOLE
        )
        for group, options in zip(self.optimizer.param_groups, own, strict=True):
            group.update(options)
        scaler = self.ranks.scaler
        if scaler is not None and progress["scaler"]:
            scaler.load_state_dict(progress["scaler"])
        self.updates = progress["updates"]
        self.skipped = progress["skipped"]
        self.skipped_in_a_row = progress["skipped_in_a_row"]


def unfuse_attention(student: nn.Module) -> list[nn.Module]:
    """Compute timm's attention in its parts: on a CPU the backward pass of the fused one takes more
    than ten times as long in half precision as in single. Returns the layers that were fused.
    """
    fused = [module for module in student.modules() if getattr(module, "fused_attn", False)]
    for module in fused:
        module.fused_attn = False  # type: ignore[assignment]
    return fused


def checkpoint_activations(student: nn.Module) -> None:
    """Let the student's timm model keep block inputs only, and compute the rest again backwards."""
    able = [module for module in student.modules() if hasattr(module, "set_grad_checkpointing")]
    if not able:
        raise InputError("engine.activation_checkpointing: this model cannot do it")
    able[0].set_grad_checkpointing(True)  # type: ignore[operator]
