"""Relevance against its definitions, and on models that cannot have it."""

from __future__ import annotations

import pytest
import torch

from tokenlabel.errors import InputError
from tokenlabel.models import DenseModel
from tokenlabel.pictures.relevance import attention_rollout, gradient_relevance

TINY = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 3, "num_heads": 2}


def model(name: str = "vit_tiny_patch16_224", **changes: object) -> DenseModel:
    torch.manual_seed(0)
    return DenseModel(name, 5, **(TINY | changes)).eval().requires_grad_(False)


def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def matrices_by_hand(student: DenseModel, x: torch.Tensor) -> list[torch.Tensor]:
    """Each layer's attention [B, heads, N, N], from the definition of attention."""
    vit = student.backbone
    tokens = vit._pos_embed(vit.patch_embed(x))
    found = []
    for block in vit.blocks:
        q, k, _ = (
            block.attn.qkv(block.norm1(tokens)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        )
        found.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1))
        tokens = block(tokens)
    return found


def test_rollout_is_the_product_of_half_attention_and_half_identity() -> None:
    student, x = model(), images()
    joint = torch.eye(5)
    for matrix in matrices_by_hand(student, x):
        joint = (0.5 * matrix.mean(1) + 0.5 * torch.eye(5)) @ joint
    expected = joint[:, 0, 1:].reshape(2, 2, 2)
    torch.testing.assert_close(attention_rollout(student, x), expected)


def test_relevance_weighs_attention_by_its_gradient() -> None:
    """The gradient of the answer with respect to attention is also had by shifting attention."""
    student, x, classes = model(), images(), torch.tensor([3, 1])
    student.grid((32, 32))  # remembered, as it is found in single precision
    student.double()
    x = x.double()
    attentions = matrices_by_hand(student, x)
    joint = torch.eye(5, dtype=torch.float64)
    for layer, matrix in enumerate(attentions):
        weighted = matrix * numeric_gradient(student, x, classes, layer, matrix.shape)
        joint = joint + weighted.clamp(min=0).mean(1) @ joint
    expected = joint[:, 0, 1:].reshape(2, 2, 2)
    torch.testing.assert_close(
        gradient_relevance(student, x, classes), expected, rtol=1e-4, atol=1e-8
    )
    other = gradient_relevance(student, x, torch.tensor([0, 0]))
    assert not torch.allclose(other, expected)


def numeric_gradient(
    student: DenseModel, x: torch.Tensor, classes: torch.Tensor, layer: int, shape: torch.Size
) -> torch.Tensor:
    attention = student.backbone.blocks[layer].attn
    attention.fused_attn = False
    gradient, step = torch.zeros(shape, dtype=torch.float64), 1e-5
    rows = torch.arange(len(x))
    for place in range(gradient[0].numel()):
        shift = torch.zeros(gradient[0].numel(), dtype=torch.float64)
        shift[place] = step
        answers = []
        for sign in (1, -1):
            hook = attention.attn_drop.register_forward_hook(
                lambda _m, _i, out, change=sign * shift: out + change.view(shape[1:])
            )
            answers.append(student(x).logits[rows, classes])
            hook.remove()
        gradient.flatten(1)[:, place] = (answers[0] - answers[1]) / (2 * step)
    attention.fused_attn = True
    return gradient


def test_the_model_is_left_as_it_was() -> None:
    student, x = model(), images()
    before = student(x).logits
    gradient_relevance(student, x, torch.tensor([0, 1]))
    assert all(block.attn.fused_attn for block in student.backbone.blocks)
    assert not student.backbone.blocks[0].attn.attn_drop._forward_hooks
    torch.testing.assert_close(student(x).logits, before)


@pytest.mark.parametrize("name", ["lvvit_t", "deit_tiny_patch16_224", "vit_base_patch16_clip_224"])
def test_other_transformers_have_it_too(name: str) -> None:
    changes = {"embed_dim": 24, "num_heads": 2, "depth": 2}
    student = model(name, **changes)
    assert gradient_relevance(student, images(), torch.tensor([0, 1])).shape == (2, 2, 2)
    assert attention_rollout(student, images()).shape == (2, 2, 2)


def test_without_global_attention_there_is_none() -> None:
    with pytest.raises(InputError, match="has no global attention"):
        attention_rollout(DenseModel("test_resnet", 5).eval(), torch.randn(1, 3, 64, 64))
