"""Backbones that stay as they are while the heads on top of them train."""

from __future__ import annotations

from types import MethodType

from torch import nn

from tokenlabel.models.weights import head_names

__all__ = ["freeze_backbone"]


def freeze_backbone(model: nn.Module) -> None:
    """Let a timm model, or a student around one, train its class and token heads alone.

    All other parameters of the timm model get no gradient, and its layers stay in evaluation mode
    whatever mode the model is put in: no dropout, no stochastic depth, and batch norms keep their
    statistics. Copies of the model are frozen too. A model without heads is frozen as a whole.
    """
    heads = {f"{name}." for name in head_names(model)}
    backbone = getattr(model, "backbone", model)
    prefix = "" if backbone is model else "backbone."
    for name, parameter in backbone.named_parameters(prefix=prefix.rstrip(".")):
        if not name.startswith(tuple(heads)):
            parameter.requires_grad_(False)
    backbone.__dict__["train"] = MethodType(_train_heads, backbone)
    backbone.train(model.training)


def _train_heads(backbone: nn.Module, mode: bool = True) -> nn.Module:
    """In the place of a frozen backbone's `train`."""
    type(backbone).train(backbone, False)
    modules = dict(backbone.named_modules())
    for name in head_names(backbone) & modules.keys():
        modules[name].train(mode)
    return backbone
