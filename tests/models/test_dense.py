"""`DenseModel`: layouts, mixing and heads."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from tokenlabel.errors import InputError
from tokenlabel.mixing import Mix
from tokenlabel.models import DenseModel, create_model


class Identity(nn.Module):
    """A backbone that does nothing after its patch embedding, in any layout of both."""

    num_classes = 5
    num_features = 3 * 4 * 4

    def __init__(self, embedding: str, final: str, prefix: int = 0) -> None:
        super().__init__()
        self.patch_embed = Patches(embedding)
        self.final, self.prefix = final, prefix
        self.head = nn.Linear(self.num_features, self.num_classes)
        self.pretrained_cfg = {"input_size": (3, 16, 24)}

    def forward_features(self, x: Tensor) -> Tensor:
        patches = self.patch_embed(x)
        if isinstance(patches, tuple):
            patches = patches[0]
        tokens = from_layout(patches, self.patch_embed.order, 4, 6)
        final = to_layout(tokens, self.final)
        if self.prefix:
            final = torch.cat([tokens.new_zeros(len(x), self.prefix, tokens.shape[3]), final], 1)
        return final

    def forward_intermediates(self, x: Tensor, indices: int) -> Any:
        return None, [x.new_zeros(len(x), self.num_features, 4, 6)]

    def forward_head(self, x: Tensor) -> Tensor:
        return self.head(from_layout(x[:, self.prefix :], self.final, 4, 6).mean((1, 2)))


class Patches(nn.Module):
    def __init__(self, order: str) -> None:
        super().__init__()
        self.order, self.beside_grid = order.removesuffix("+grid"), order.endswith("+grid")

    def forward(self, x: Tensor) -> Any:
        tokens = nn.functional.pixel_unshuffle(x, 4).permute(0, 2, 3, 1)
        out = to_layout(tokens, self.order)
        return (out, (4, 6)) if self.beside_grid else out


def to_layout(tokens: Tensor, order: str) -> Tensor:
    return {"NHWC": tokens, "NLC": tokens.flatten(1, 2), "NCHW": tokens.permute(0, 3, 1, 2)}[order]


def from_layout(x: Tensor, order: str, h: int, w: int) -> Tensor:
    if order == "NLC":
        return x.unflatten(1, (h, w))
    return x.permute(0, 2, 3, 1) if order == "NCHW" else x


@pytest.mark.parametrize("embedding", ["NLC", "NHWC", "NCHW", "NLC+grid"])
@pytest.mark.parametrize(("final", "prefix"), [("NLC", 0), ("NLC", 3), ("NHWC", 0), ("NCHW", 0)])
@pytest.mark.parametrize("level", ["embedding", "pixels"])
def test_unmixing_undoes_mixing_exactly(
    embedding: str, final: str, prefix: int, level: Any
) -> None:
    model = DenseModel(Identity(embedding, final, prefix))
    assert model.grid((16, 24)) == (4, 6)
    images = torch.randn(5, 3, 16, 24)
    drawn = Mix.draw(5, (4, 6), per_sample=True, generator=torch.Generator().manual_seed(1))
    mix = Mix(drawn.partner, drawn.share, level)
    assert mix.share.any()
    plain, mixed = model.forward_tokens(images), model.forward_tokens(images, mix)
    assert torch.equal(mixed[1], plain[1])
    assert not torch.equal(mixed[0], plain[0])  # the class token did see the mixed image
    assert torch.equal(plain[1][:, 1, 2, 0], images[:, 0, 4, 8])  # rows are rows


def test_blended_tokens_stay_blended() -> None:
    model = DenseModel(Identity("NLC", "NLC"))
    images = torch.randn(4, 3, 16, 24)
    mix = Mix.draw(4, (4, 6), kind="mixup", generator=torch.Generator().manual_seed(0))
    blended = torch.lerp(images, images[mix.partner], mix.share[0, 0, 0])
    torch.testing.assert_close(model(images, mix).tokens, model(blended).tokens)


def test_an_overlapping_stem_is_mixed_after_it() -> None:
    """MixToken acts on LV-ViT's patch embeddings: not CutMix on pixels, whose borders bleed."""
    model = create_model("lvvit_t", 3, img_size=64, depth=1).eval()
    seen: list[Tensor] = []
    model.backbone.blocks.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    images = torch.randn(2, 3, 64, 64)
    share = torch.zeros(1, 4, 4, dtype=torch.bool)
    share[:, 1:3, 2:4] = True
    mix = Mix(torch.tensor([1, 0]), share)
    embedded = model.backbone.patch_embed(images).reshape(2, 4, 4, -1)
    expected = mix(embedded, channels_last=True).flatten(1, 2) + model.backbone.pos_embed[:, 1:]
    model(images, mix)
    model(images, Mix(mix.partner, share, "pixels"))
    assert torch.equal(seen[0][:, 1:], expected)
    assert not torch.allclose(seen[1][:, 1:], expected, atol=1e-4)


def test_class_logits_are_the_backbones_own() -> None:
    backbone = timm.create_model("test_vit", num_classes=4).eval()
    images = torch.randn(2, 3, 160, 160)
    expected = backbone(images)
    assert torch.equal(DenseModel(backbone).eval()(images).logits, expected)


def test_token_only_student_averages_its_tokens() -> None:
    model = create_model(
        "lvvit_t", 3, img_size=32, depth=1, heads="tokens", class_token=False, global_pool="avg"
    )
    output = model(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(output.logits, output.tokens.mean((1, 2)))
    assert not model.backbone.head.weight.requires_grad  # nothing depends on the class head
    (output.logits.sum() + output.tokens.sum()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_class_only_student_is_a_one_by_one_map() -> None:
    model = create_model("test_resnet", 3, heads="class")
    assert model.grid(160) == (1, 1)
    output = model(torch.randn(2, 3, 160, 160))
    assert torch.equal(output.tokens, output.logits[:, None, None])
    exchange = Mix(torch.tensor([1, 0]), torch.ones(1, 2, 2, dtype=torch.bool))
    with pytest.raises(InputError, match="without token head"):
        model(torch.randn(2, 3, 160, 160), exchange)


def test_a_copy_mixes_for_itself() -> None:
    """Weight averages deep-copy the student: the copy's hook must read the copy's mix."""
    model = DenseModel(Identity("NLC", "NLC"))
    twin = copy.deepcopy(model)
    images = torch.randn(2, 3, 16, 24)
    mix = Mix(torch.tensor([1, 0]), torch.ones(1, 4, 6, dtype=torch.bool))
    assert torch.equal(twin(images, mix).logits, twin(images).logits.flip(0))


def test_grid_follows_the_image_size() -> None:
    assert create_model("test_resnet", 2).grid((160, 97)) == (5, 4)
    model = create_model("lvvit_t", 2, img_size=(32, 48), depth=1)
    assert model.grid((32, 48)) == (2, 3)
    with pytest.raises(InputError, match="64x64"):
        model.grid(64)
    assert create_model("lvvit_t", 2, depth=1, dynamic_img_size=True).grid((64, 32)) == (4, 2)


def test_what_cannot_be_dense_says_why() -> None:
    with pytest.raises(InputError, match="did you mean 'lvvit_s'"):
        create_model("lvit_s")
    with pytest.raises(InputError, match="Linear is not a student"):
        DenseModel(nn.Linear(2, 2))
    with pytest.raises(InputError, match="drops patches"):
        create_model("test_vit", 2, patch_drop_rate=0.5)


def test_compiles_in_one_graph_with_and_without_a_mix() -> None:
    torch.manual_seed(0)
    model = create_model("lvvit_t", 3, img_size=32, depth=2).eval()
    images = torch.randn(4, 3, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), model(images))
    first, second = (
        Mix(torch.tensor(partner), torch.tensor(share)[None])
        for partner, share in (
            ([3, 2, 1, 0], [[True, False], [False, False]]),
            ([1, 0, 3, 2], [[False, False], [True, True]]),
        )
    )
    torch.testing.assert_close(compiled(images, first), model(images, first))
    with torch._dynamo.config.patch(error_on_recompile=True):
        torch.testing.assert_close(compiled(images, second), model(images, second))
    torch.testing.assert_close(compiled(images), model(images))
    assert model._mix is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_student_may_be_built_where_gradients_are_off(mode: Any) -> None:
    with mode():
        quiet = create_model("lvvit_t", 3, img_size=32, depth=1)
    usual = create_model("lvvit_t", 3, img_size=32, depth=1)
    trains = [parameter.requires_grad for parameter in usual.parameters()]
    assert [parameter.requires_grad for parameter in quiet.parameters()] == trains
    with torch.no_grad():
        assert quiet.eval()(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 3)


def test_a_frozen_backbone_stays_frozen_and_its_token_head_trains() -> None:
    backbone = timm.create_model("test_vit", num_classes=4).requires_grad_(False)
    student = DenseModel(backbone)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    student(torch.randn(2, 3, 160, 160)).tokens.sum().backward()
    assert student.token_head.weight.grad is not None
