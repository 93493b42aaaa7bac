"""Which part of an image a vision transformer's answer rests on, read from its attention.

Both methods need global attention: one [tokens, tokens] matrix a head and layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tokenlabel.errors import InputError
from tokenlabel.models import DenseModel

__all__ = ["attention_rollout", "gradient_relevance"]


def attention_rollout(model: DenseModel, images: Tensor) -> Tensor:
    """Attention followed through all layers to the patches: [B, h, w], rows summing to at most 1.

    Images are normalized, [B, 3, H, W]. Abnar & Zuidema 2020: each layer passes on half of a token
    and half of what it attends to, averaged over heads. It is the same for every class.
    """

    def layer(attention: Tensor) -> Tensor:
        mixed = attention.mean(1)
        return 0.5 * (mixed + torch.eye(mixed.shape[-1], device=mixed.device))

    with torch.no_grad(), _recorded_attention(model) as matrices:
        model(images)
    return _on_patches(_through_layers([layer(a) for a in matrices]), model, images)


def gradient_relevance(model: DenseModel, images: Tensor, classes: Tensor) -> Tensor:
    """What speaks for `classes` [B] in each image: [B, h, w], not negative.

    Images are normalized, [B, 3, H, W]; the answer explained is the class logit. Chefer et al. 2021
    (Generic attention-model explainability, equations 5 and 6): attention weighted by its gradient,
    its positive part averaged over heads, accumulated as R <- R + A R.
    """
    images = images.clone().requires_grad_()  # so that gradients flow through frozen weights
    with torch.enable_grad(), _recorded_attention(model) as matrices:
        logits = model(images).logits
        score = logits.gather(1, classes[:, None]).sum()
    gradients = torch.autograd.grad(score, matrices, allow_unused=True)
    layers = []
    for attention, gradient in zip(matrices, gradients, strict=True):
        assert gradient is not None
        weighted = (attention * gradient).clamp(min=0).mean(1).detach()
        layers.append(weighted + torch.eye(weighted.shape[-1], device=weighted.device))
    return _on_patches(_through_layers(layers), model, images)


def _through_layers(layers: list[Tensor]) -> Tensor:
    """The product of the layers' matrices [B, N, N], the first applied first."""
    joint = layers[0]
    for matrix in layers[1:]:
        joint = matrix @ joint
    return joint


def _on_patches(joint: Tensor, model: DenseModel, images: Tensor) -> Tensor:
    """What reaches the class token, or the mean of all where there is none: [B, h, w]."""
    prefix = int(getattr(model.backbone, "num_prefix_tokens", 0))
    height, width = model.grid((images.shape[2], images.shape[3]))
    if joint.shape[-1] != prefix + height * width:
        raise _no_global_attention(model)
    received = joint[:, 0] if prefix else joint.mean(1)
    return received[:, prefix:].reshape(-1, height, width)


@contextmanager
def _recorded_attention(model: DenseModel) -> Iterator[list[Tensor]]:
    """The attention of every layer, [B, heads, N, N], in a list filled by a forward pass.

    Fused attention never forms these matrices, so it is switched off meanwhile; what is read is the
    input of the dropout that follows the softmax.
    """
    layers: list[Any] = [
        m for m in model.modules() if hasattr(m, "fused_attn") and hasattr(m, "attn_drop")
    ]
    if not layers:
        raise _no_global_attention(model)
    matrices: list[Tensor] = []

    def record(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        (attention,) = inputs
        if attention.ndim != 4 or attention.shape[-1] != attention.shape[-2]:
            raise _no_global_attention(model)
        matrices.append(attention)
        return attention

    before = [layer.fused_attn for layer in layers]
    hooks = [layer.attn_drop.register_forward_hook(record) for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False
        yield matrices
    finally:
        for layer, fused, hook in zip(layers, before, hooks, strict=True):
            layer.fused_attn = fused
            hook.remove()


def _no_global_attention(model: DenseModel) -> InputError:
    return InputError(
        f"{type(model.backbone).__name__} has no global attention to show:"
        " relevance is for plain vision transformers"
    )
