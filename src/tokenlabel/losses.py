"""The token-labeling loss, in closed form over palette targets.

With residual r and palette excesses e_p, the cross-entropy of a token is
`-sum_c t_c log q_c = -sum_p e_p log q_p - r * sum_c log q_c`, so no [tokens, classes] target is ever
made. The gradient, `(sum_c t_c) * q - t`, is formed in the forward pass in the buffer that held q: one
buffer of the logits' size in all, so a loss can be differentiated once. Autograd over the formula would
keep several. It is divided by the number of tokens in the backward pass only, beside a loss scale: the
gradient of the mean would be too small for float16.

Shapes: B images, N tokens an image, P palette entries, C classes, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.mixing import Mix
from tokenlabel.output import DenseOutput
from tokenlabel.targets import TokenTarget

__all__ = ["class_loss", "fused_token_loss", "head_loss", "token_labeling_loss", "token_loss"]

_CACHED = 1 << 18  # logits that fit a core's cache, with their gradient


def token_labeling_loss(
    output: DenseOutput,
    target: TokenTarget | None,
    class_target: Tensor | None = None,
    mix: Mix | None = None,
    token_weight: float = 0.5,
    *,
    weights: Tensor | None = None,
    head: nn.Module | None = None,
    chunk: int | None = None,
    multi_label: bool = False,
) -> dict[str, Tensor]:
    """`class + token_weight * token` (paper, equation 5), and both terms, as scalars.

    - `class_target`: int64 class ids [B], or soft targets [B, C]; left out, the class token learns
      the annotator's target of the whole view, and nothing from images without one (`target.mask`).
    - `mix`: the one that the model was given.
    - `weights` [B]: of each image's losses; the means stay over images and tokens.
    - `head`: the model's token head, where `output.tokens` are the features [B, h, w, D] before it;
      with a `chunk`, a linear head is applied to so many images at a time (`fused_token_loss`).
    - `multi_label`: an image may have several classes: the class term is the binary cross-entropy of
      `class_target` [B, C], summed over classes. Tokens learn as ever.

    Without `target` there is no token term: plain classification. Without classes (logits [B, 0])
    there is no class term.
    """
    terms: dict[str, Tensor] = {}
    if output.logits.shape[1]:
        if class_target is None:
            if target is None:
                raise ValueError("without a token target there must be a class_target")
            class_target = target.class_target() * target.mask[:, :1]
        terms["class"] = class_loss(
            output.logits, class_target, mix, weights, multi_label=multi_label
        )
    elif target is None:
        raise ValueError("without classes there must be a token target")
    if target is None:
        return {"loss": terms["class"], **terms}
    terms["token"] = head_loss(output.tokens, target, mix, weights=weights, head=head, chunk=chunk)
    weighed = token_weight * terms["token"]
    return {"loss": terms["class"] + weighed if "class" in terms else weighed, **terms}


def head_loss(
    tokens: Tensor,
    target: TokenTarget,
    mix: Mix | None = None,
    *,
    weights: Tensor | None = None,
    head: nn.Module | None = None,
    chunk: int | None = None,
) -> Tensor:
    """The token term of one head, a scalar; keywords as `token_labeling_loss` takes them."""
    if weights is not None:
        target = target.weighted(weights)
    if head is None:
        return token_loss(tokens, target, mix)
    if chunk is None or not isinstance(head, nn.Linear):
        return token_loss(head(tokens), target, mix)
    return fused_token_loss(tokens, head.weight, head.bias, target, mix, chunk)


def class_loss(
    logits: Tensor,
    class_target: Tensor,
    mix: Mix | None = None,
    weights: Tensor | None = None,
    *,
    multi_label: bool = False,
) -> Tensor:
    """Cross-entropy of class logits [B, C], targets mixed by the area of the partner's part.

    `multi_label`: the sum of each class's binary cross-entropy instead, of targets [B, C].

    Paper, equation 6: `lam * CE(own) + (1 - lam) * CE(partner's)`. Targets are ids [B] or soft [B, C];
    `weights` [B] weigh each image's target. The mean is over images, which does not depend on how
    they fall on ranks (a mean over weights would).
    """
    if multi_label:
        if mix is not None:  # linear in its target, too
            own_share = mix.lam.to(class_target)[:, None]
            class_target = torch.lerp(class_target[mix.partner], class_target, own_share)
        each = F.binary_cross_entropy_with_logits(logits.float(), class_target, reduction="none")
        sums = each.sum(1)
        return (sums if weights is None else sums * weights).mean()
    if weights is not None:  # cross-entropy is linear in its target
        if not class_target.is_floating_point():
            class_target = F.one_hot(class_target, logits.shape[1]).float()
        class_target = class_target * weights[:, None]
    own = F.cross_entropy(logits.float(), class_target, reduction="none")
    if mix is None:
        return own.mean()
    other = F.cross_entropy(logits.float(), class_target[mix.partner], reduction="none")
    return torch.lerp(other, own, mix.lam.expand_as(own)).mean()


def token_loss(tokens: Tensor, target: TokenTarget, mix: Mix | None = None) -> Tensor:
    """Mean cross-entropy of token logits [B, h, w, C], a scalar (paper, equation 4).

    The mean is over all B * N tokens; those without a target count with zero. So every token has the
    same weight in every batch, however a batch is divided among ranks or accumulated.
    """
    target = _after_mix(target, mix, tokens.shape[1:3])
    loss: Tensor = _TokenCrossEntropy.apply(tokens.flatten(1, 2), *_tensors(target))
    return loss


def fused_token_loss(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: TokenTarget,
    mix: Mix | None = None,
    chunk: int = 8,
) -> Tensor:
    """`token_loss` of `linear(features, weight, bias)`, `chunk` images at a time.

    The logits of one chunk exist at a time, which takes most of the head's memory away. Features are
    [B, h, w, D], weight [C, D], bias [C].
    """
    target = _after_mix(target, mix, features.shape[1:3])
    loss: Tensor = _FusedTokenCrossEntropy.apply(
        features.flatten(1, 2), weight, bias, chunk, *_tensors(target)
    )
    return loss


def _after_mix(target: TokenTarget, mix: Mix | None, grid: torch.Size) -> TokenTarget:
    """Exchanged tokens were put back by the model; blended ones have two targets."""
    if tuple(grid) != target.grid:
        raise ValueError(f"the model's tokens are {tuple(grid)}, the targets {target.grid}")
    return target if mix is None or mix.exchanges else target.mixed(mix)


def _tensors(target: TokenTarget) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """classes [B, P], and of the tokens alone excess [B, N, P], residual and mask [B, N]."""
    return target.classes, target.excess[:, 1:], target.residual[:, 1:], target.mask[:, 1:]


def _rows(
    classes: Tensor, excess: Tensor, residual: Tensor, mask: Tensor, part: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """classes, excess and residual of some images.

    A masked token gets a target of no mass at all: no loss and no gradient.
    """
    kept = mask[part].float()
    return classes[part], excess[part] * kept[..., None], residual[part] * kept


def _loss_and_gradient(
    logits: Tensor, classes: Tensor, excess: Tensor, residual: Tensor, out: Tensor
) -> Tensor:
    """Summed cross-entropy of logits [B, N, C]; its gradient [B, N, C] is written to `out`.

    `out` may be the logits themselves. One buffer of their size in float32 holds q and then the
    gradient: `out`, where it is float32. Every log q is the logit less one log-normalizer, which the
    largest logit and the largest q give: a second exponential of all classes would cost a fifth more.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    index = classes[:, None].expand(excess.shape)
    logits = logits.to(dtype)
    known, largest, total = logits.gather(2, index), logits.amax(-1), logits.sum(-1)
    q = torch.softmax(logits, -1, out=out if out.dtype == dtype else logits)
    log_normalizer = largest - q.amax(-1).log()
    mass = excess.sum(-1) + residual * logits.shape[-1]
    loss = (mass * log_normalizer - residual * total).sum() - (excess * known).sum()
    gradient = q.mul_(mass[..., None]).sub_(residual[..., None])
    gradient.scatter_add_(2, index, -excess.to(dtype))
    if gradient is not out:
        out.copy_(gradient)
    return loss


def _images_at_once(logits: Tensor) -> int:
    """A lone thread takes as few images as its cache holds; many cores, or a GPU, take them all."""
    alone = logits.is_cpu and torch.get_num_threads() == 1 and not torch.compiler.is_compiling()
    return max(_CACHED // logits.shape[1:].numel(), 1) if alone else max(len(logits), 1)


class _TokenCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, classes: Tensor, excess: Tensor, residual: Tensor, mask: Tensor
    ) -> Tensor:
        gradient = torch.empty_like(logits)
        loss = logits.new_zeros((), dtype=torch.promote_types(logits.dtype, torch.float32))
        chunk = _images_at_once(logits)
        for start in range(0, len(logits), chunk):
            part = slice(start, start + chunk)
            rows = _rows(classes, excess, residual, mask, part)
            loss += _loss_and_gradient(logits[part], *rows, out=gradient[part])
        ctx.save_for_backward(gradient)
        ctx.spent = False
        ctx.tokens = tokens = max(mask.numel(), 1)
        return loss / tokens

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        if ctx.spent:
            raise RuntimeError("the token loss was already differentiated: compute it once more")
        (gradient,) = ctx.saved_tensors
        scale = (grads[0] / ctx.tokens).to(gradient.dtype)
        if torch.compiler.is_compiling():
            return gradient * scale, None, None, None, None
        ctx.spent = True  # the gradient is scaled where it stands: no second buffer
        return gradient.mul_(scale), None, None, None, None


class _FusedTokenCrossEntropy(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        chunk: int,
        classes: Tensor,
        excess: Tensor,
        residual: Tensor,
        mask: Tensor,
    ) -> Tensor:
        w = weight.to(features.dtype)
        b = None if bias is None else bias.to(features.dtype)
        loss = features.new_zeros((), dtype=torch.float32)
        grad_features = torch.empty_like(features)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        for start in range(0, len(features), chunk):
            part = slice(start, start + chunk)
            x = features[part]
            gradient = F.linear(x, w, b)  # logits so far: their gradient takes their place
            rows = _rows(classes, excess, residual, mask, part)
            loss += _loss_and_gradient(gradient, *rows, out=gradient)
            grad_features[part] = gradient @ w
            flat = gradient.flatten(0, 1)
            grad_weight += flat.T @ x.flatten(0, 1)
            if grad_bias is not None:
                grad_bias += flat.sum(0)
        ctx.save_for_backward(grad_features, grad_weight, grad_bias)
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        ctx.tokens = tokens = max(mask.numel(), 1)
        return loss / tokens

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")  # type: ignore[untyped-decorator]
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_features, grad_weight, grad_bias = ctx.saved_tensors
        weight_dtype, bias_dtype = ctx.dtypes
        scale = grads[0] / ctx.tokens
        return (
            grad_features * scale.to(grad_features.dtype),
            (grad_weight * scale).to(weight_dtype),
            None if grad_bias is None else (grad_bias * scale).to(bias_dtype),
            *(None,) * 5,
        )
