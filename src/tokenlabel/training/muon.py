"""Muon with the matrices of one shape orthogonalized together, in the arithmetic of the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from timm.optim import Muon as TimmMuon
from timm.optim.muon import (
    _COEFFICIENTS,
    get_lr_scale,
    resolve_ns_coefficients,
    zeropower_via_newtonschulz,
)
from torch import Tensor
from torch.distributed.tensor import DTensor

__all__ = ["Muon"]


class Muon(TimmMuon):  # type: ignore[misc]  # timm has no types
    """timm's Muon, with the same updates but for rounding.

    timm orthogonalizes one matrix at a time, always in bfloat16. On a GPU the many small kernels of
    this take as long as the rest of a small student's step; on a CPU without bfloat16 units it takes
    longer. Here the matrices of one shape go together, in `dtype`. Sharded ones stay timm's.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], dtype: torch.dtype) -> None:
        super().__init__(groups)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """timm decides at its first step which parameters are matrices, and steps the others."""
        stacks = [(group, list(self._stacks(group))) for group in self.param_groups]
        taken = [p for _, of_group in stacks for stack in of_group for p in stack]
        grads = [p.grad for p in taken]
        for parameter in taken:
            parameter.grad = None
        loss = super().step(closure)
        for parameter, grad in zip(taken, grads, strict=True):
            parameter.grad = grad
        for group, of_group in stacks:
            for stack in of_group:
                self._update(group, stack)
        return loss

    def _stacks(self, group: dict[str, Any]) -> Iterator[list[Tensor]]:
        """The matrices of a group that have a gradient, by shape; convolutions are [out, rest]."""
        if group["algo"] != "muon" or group["conv_mode"] != "flatten":
            return
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            known = self.state[parameter].get("use_muon", False)
            if known and parameter.grad is not None and not isinstance(parameter, DTensor):
                by_shape[parameter.shape].append(parameter)
        yield from by_shape.values()

    def _update(self, group: dict[str, Any], stack: list[Tensor]) -> None:
        """The arithmetic of timm's `muon`, on matrices of one shape."""
        lr, momentum = group["lr"], group["momentum"]
        grads = [parameter.grad for parameter in stack if parameter.grad is not None]
        averages = [self.state[parameter]["momentum_buffer"] for parameter in stack]
        torch._foreach_lerp_(averages, grads, 1.0 - momentum)
        updates = torch._foreach_lerp(grads, averages, momentum) if group["nesterov"] else averages
        matrices = torch.stack([update.flatten(1) for update in updates])
        orthogonal = zeropower_via_newtonschulz(
            matrices,
            group["ns_steps"],
            resolve_ns_coefficients(group["ns_coefficients"], _COEFFICIENTS),
            eps=group["eps"],
            safety_factor=group["safety_factor"],
            dtype=self.dtype,
            scale_eps=group["scale_eps"],
        ).to(matrices.dtype)
        rule = group["adjust_lr_fn"]
        scale = get_lr_scale(matrices.shape[1:], rule) if rule else 1.0
        torch._foreach_mul_(stack, 1.0 - lr * group["weight_decay"])
        steps = [one.view_as(p) for one, p in zip(orthogonal, stack, strict=True)]
        torch._foreach_add_(stack, steps, alpha=-lr * scale)
