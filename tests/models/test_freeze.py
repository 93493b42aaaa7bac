"""Frozen backbones: what trains, what stays, in copies too."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tokenlabel.models import DenseModel, build_model
from tokenlabel.models.freeze import freeze_backbone


def trained_once(model: DenseModel, images: Tensor) -> set[str]:
    """The names of what an update changes, statistics included."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    output = model.train()(images)
    (output.logits[:, 0].sum() + output.tokens[..., 0].sum()).backward()
    optimizer.step()
    return {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}


@pytest.mark.parametrize(
    ("name", "arguments", "heads"),
    [
        ("lvvit_t", {"depth": 2, "embed_dim": 32, "drop_path_rate": 0.5, "img_size": 32},
         {"backbone.head", "backbone.aux_head"}),
        ("vit_tiny_patch16_224", {"depth": 2, "embed_dim": 48, "img_size": 32,
                                  "proj_drop_rate": 0.5}, {"backbone.head", "aux_head"}),
        ("resnet10t", {"channels": [8, 8, 16, 16], "stem_width": 8},
         {"backbone.fc", "aux_head"}),
    ],
)  # fmt: skip
def test_only_the_heads_of_a_frozen_student_train(
    name: str, arguments: dict[str, object], heads: set[str]
) -> None:
    model = DenseModel(name, 3, **arguments)
    images = torch.randn(2, 3, 32, 32)
    freeze_backbone(model)
    twin = copy.deepcopy(model)
    for student in (model, twin):
        student.train()
        first, second = student(images), student(images)
        assert torch.equal(first.tokens, second.tokens)  # nothing is dropped
        changed = {name.rpartition(".")[0] for name in trained_once(student, images)}
        assert changed == heads
    assert model.training


def test_a_model_without_heads_is_frozen_as_a_whole() -> None:
    model = build_model("resnet10t", num_classes=0, channels=[8, 8, 16, 16], stem_width=8)
    freeze_backbone(model)
    model.train()
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
