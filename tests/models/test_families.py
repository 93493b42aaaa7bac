"""Every timm family becomes a student: the promise of `DenseModel`, one model a family.

The slow test examines all of them, and its results become docs/families.md (see conftest.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.mixing import Mix
from tokenlabel.models import DenseModel
from tokenlabel.output import fuse

# Family: one model of it, made small where its arguments allow.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "LV-ViT": ("lvvit_t", {"depth": 2, "img_size": 64}),
    "ViT": ("vit_tiny_patch16_224", {"depth": 2, "img_size": 64}),
    "DeiT (distilled)": ("deit_tiny_distilled_patch16_224", {"depth": 2, "img_size": 64}),
    "DeiT-III": ("deit3_small_patch16_224", {"depth": 2, "img_size": 64}),
    "DINOv2": ("vit_small_patch14_dinov2", {"depth": 2, "img_size": 56}),
    "DINOv3": ("vit_small_patch16_dinov3", {"depth": 2, "img_size": 64}),
    "EVA-02": ("eva02_tiny_patch14_224", {"depth": 2, "img_size": 56}),
    "BEiT": ("beit_base_patch16_224", {"depth": 2, "img_size": 64}),
    "FlexiViT": ("flexivit_small", {"depth": 2, "img_size": 64}),
    "SigLIP": ("vit_base_patch16_siglip_224", {"depth": 2, "img_size": 64}),
    "ViT with relative positions": ("vit_relpos_small_patch16_224", {"depth": 2, "img_size": 64}),
    "NaFlexViT": ("naflexvit_base_patch16_gap", {"depth": 2}),
    "CaiT": ("cait_xxs24_224", {"depth": 2, "img_size": 64}),
    "XCiT": ("xcit_nano_12_p16_224", {"depth": 2, "img_size": 64}),
    "VOLO": ("volo_d1_224", {"img_size": 64}),
    "TNT": ("tnt_s_patch16_224", {"depth": 2, "img_size": 64}),
    "ConViT": ("convit_tiny", {"depth": 2, "local_up_to_layer": 1, "img_size": 64}),
    "CrossViT": ("crossvit_tiny_240", {"depth": ([1, 1, 0],)}),
    "PiT": ("pit_ti_224", {"depth": (1, 1, 1)}),
    "CoaT": ("coat_tiny", {"parallel_depth": 1, "img_size": 64}),
    "CoaT-Lite": ("coat_lite_tiny", {"img_size": 64}),
    "LeViT": ("levit_128s", {"depth": (1, 1, 1)}),
    "Mixer": ("mixer_s32_224", {"img_size": 64}),
    "ResMLP": ("resmlp_12_224", {"img_size": 64}),
    "gMLP": ("gmlp_ti16_224", {"img_size": 64}),
    "Sequencer": ("sequencer2d_s", {"layers": (1, 1, 1, 1), "img_size": 56}),
    "Swin": ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1)}),
    "Swin v2": ("swinv2_tiny_window8_256", {"depths": (1, 1, 1, 1)}),
    "Swin v2 CR": ("swinv2_cr_tiny_ns_224", {"depths": (1, 1, 1, 1)}),
    "PVT v2": ("pvt_v2_b0", {"depths": (1, 1, 1, 1)}),
    "MViT v2": ("mvitv2_tiny", {}),
    "Hiera": ("hiera_tiny_224", {"stages": (1, 1, 1, 1)}),
    "HieraDet (SAM 2)": ("hieradet_small", {}),
    "NesT": ("nest_tiny", {}),
    "Twins-PCPVT": ("twins_pcpvt_small", {"depths": (1, 1, 1, 1)}),
    "Twins-SVT": ("twins_svt_small", {"depths": (1, 1, 1, 1)}),
    "MaxViT": ("maxvit_nano_rw_256", {}),
    "CoAtNet": ("coatnet_nano_rw_224", {}),
    "ViTamin": ("vitamin_small_224", {"depth": 2}),
    "Visformer": ("visformer_tiny", {"depth": (1, 1, 1)}),
    "FocalNet": ("focalnet_tiny_srf", {}),
    "DaViT": ("davit_tiny", {"depths": (1, 1, 1, 1)}),
    "GCViT": ("gcvit_xxtiny", {}),
    "TinyViT": ("tiny_vit_5m_224", {"depths": (1, 1, 1, 1)}),
    "PoolFormer": ("poolformer_s12", {}),
    "CAFormer": ("caformer_s18", {}),
    "EfficientFormer": ("efficientformer_l1", {"depths": (1, 1, 1, 1)}),
    "EfficientFormer v2": ("efficientformerv2_s0", {}),
    "EfficientViT (MIT)": ("efficientvit_b0", {}),
    "EfficientViT (MSRA)": ("efficientvit_m0", {}),
    "FastViT": ("fastvit_t8", {"layers": (1, 1, 1, 1)}),
    "SwiftFormer": ("swiftformer_xs", {"layers": (1, 1, 1, 1)}),
    "EdgeNeXt": ("edgenext_xx_small", {}),
    "MobileViT": ("mobilevit_xxs", {}),
    "MobileViT v2": ("mobilevitv2_050", {}),
    "MobileNet v4 hybrid": ("mobilenetv4_hybrid_medium", {}),
    "Next-ViT": ("nextvit_small", {}),
    "RepViT": ("repvit_m0_9", {}),
    "SHViT": ("shvit_s1", {}),
    "EfficientViM": ("efficientvim_m1", {}),
    "MambaOut": ("mambaout_femto", {"depths": (1, 1, 1, 1)}),
    "InceptionNeXt": ("inception_next_atto", {"depths": (1, 1, 1, 1)}),
    "ConvNeXt": ("convnext_atto", {"depths": (1, 1, 1, 1)}),
    "ConvNeXt v2": ("convnextv2_atto", {"depths": (1, 1, 1, 1)}),
    "ResNet": ("resnet18", {"layers": (1, 1, 1, 1)}),
    "RegNet": ("regnety_002", {}),
    "NFNet": ("nfnet_l0", {"depths": (1, 1, 1, 1)}),
    "EfficientNet": ("efficientnet_b0", {}),
    "DenseNet": ("densenet121", {"block_config": (1, 1, 1, 1)}),
}

# Dynamo cannot trace these as one graph, whoever wraps them.
NOT_ONE_GRAPH = {"Sequencer": "Dynamo does not support RNN, GRU, or LSTM"}

# Of unlike kinds, for every run: class token, NHWC map, overlapping stem, tokens beside their grid,
# several streams, no patch embedding.
EVERY_RUN = ["DINOv3", "Swin", "PVT v2", "XCiT", "CrossViT", "ResNet"]

# A token head beside the class head, two class heads, attention to the class token.
TWO_KINDS_OF_HEADS = ["LV-ViT", "VOLO", "DeiT (distilled)", "LeViT", "CaiT"]


class Student:
    """A student with two images, and every promise as a method."""

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        torch.manual_seed(0)
        self.name = name
        self.backbone = timm.create_model(name, num_classes=5, **arguments)
        self.model = DenseModel(self.backbone)
        with torch.no_grad():  # nothing may hold only because an initial weight is zero
            for parameter in self.model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
        channels, *size = self.model.image_shape
        self.images = torch.randn(2, channels, *size)
        self.grid = self.model.grid((size[0], size[1]))
        self.settle_batch_statistics()

    def settle_batch_statistics(self) -> None:
        """Those of a fresh model fit no activations: in evaluation it hardly sees its images."""
        norms = [m for m in self.model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0  # all of the one pass below
        if norms:
            with torch.no_grad():
                self.model.train()(self.images)

    def wrapped_logits_are_its_own(self) -> None:
        self.model.eval()
        with torch.no_grad():
            expected = self.backbone(self.images)
            output = self.model(self.images)
        # a backbone that owns its token head adds the token term by itself: once, as `fuse` does
        answer = output.logits if self.model.aux_head is not None else fuse(output)
        assert torch.equal(answer, expected)
        assert output.tokens.shape == (2, *self.grid, 5)

    def class_logits_are_the_class_heads_own(self) -> None:
        """Of several class heads what the family makes of them; in training as in evaluation."""
        classifier = self.backbone.get_classifier()
        several = isinstance(classifier, tuple | nn.ModuleList)
        heads = list(classifier) if several else [classifier]
        said: list[Tensor] = []
        hooks = [head.register_forward_hook(lambda *call: said.append(call[2])) for head in heads]
        for training in (False, True):
            said.clear()
            with torch.no_grad():
                logits = fuse(self.model.train(training)(self.images), 0)
            assert len(said) == len(heads)
            # of several heads the mean, or with shares that are learned (EfficientViM)
            learned = getattr(self.backbone, "weights", torch.zeros(len(said)))
            shares = learned.detach().softmax(0)[:, None, None]
            own = (shares * torch.stack([scores.flatten(1) for scores in said])).sum(0)
            torch.testing.assert_close(logits, own)
        for hook in hooks:
            hook.remove()

    def exchanging_all_tokens_exchanges_the_images(self) -> None:
        """The model sees whole images exchanged; tokens come back to their own."""
        self.model.eval()
        share = torch.ones(1, *self.grid, dtype=torch.bool)
        with torch.no_grad():
            plain = self.model(self.images)
            mixed = self.model(self.images, Mix(torch.tensor([1, 0]), share))
        torch.testing.assert_close(mixed.logits, plain.logits.flip(0), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(mixed.tokens, plain.tokens, atol=1e-4, rtol=1e-4)

    def mixing_part_of_the_tokens_is_seen(self) -> None:
        self.model.eval()
        with torch.no_grad():
            plain, mixed = self.model(self.images), self.model(self.images, self.half)
        assert not torch.allclose(mixed.logits, plain.logits)
        assert not torch.allclose(mixed.tokens, plain.tokens)

    @property
    def half(self) -> Mix:
        share = torch.zeros(1, *self.grid, dtype=torch.bool)
        share[:, : self.grid[0] // 2] = True
        return Mix(torch.tensor([1, 0]), share)

    def loss(self) -> Tensor:
        torch.manual_seed(1)  # the same dropout each time
        output = self.model(self.images, self.half)
        tokens = output.tokens.flatten(0, 2)
        classes = torch.arange(len(tokens)) % 5
        return F.cross_entropy(output.logits, classes[:2]) + F.cross_entropy(tokens, classes)

    def gradients_reach_every_parameter(self) -> None:
        self.model.train().zero_grad()
        self.loss().backward()
        for key, parameter in self.model.named_parameters():
            assert parameter.requires_grad, f"{key} does not train"
            assert parameter.grad is not None, f"{key} has no gradient"
            assert parameter.grad.isfinite().all(), f"the gradient of {key} is not finite"

    def one_step_lowers_the_loss(self) -> None:
        """A step along the gradient, as long as should take a hundredth off the loss."""
        before = self.loss()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        length = 0.01 * before.item() / float(sum(g.square().sum() for g in gradients))
        torch.optim.SGD(self.model.parameters(), lr=length).step()
        after = self.loss()
        assert after < before, f"{before.item()} -> {after.item()}"

    def compiles_in_one_graph(self) -> None:
        self.model.train().zero_grad()
        torch._dynamo.reset()
        compiled = torch.compile(self.model, fullgraph=True, backend="aot_eager")
        torch.manual_seed(1)
        output = compiled(self.images, self.half)
        (output.logits.sum() + output.tokens.sum()).backward()

    def facts(self) -> tuple[str, str, str]:
        """How its final map lies, the map's stride, and where MixToken acts: for the table."""
        final, embedding = self.model._final, self.model._embedding
        layout = final.order + (f" after {final.prefix}" if final.prefix else "")
        source = "" if self.model._final_in_features else ", from `forward_intermediates`"
        stride = f"{final.stride[0]}"
        place = f"embeddings of stride {embedding.stride[0]}" if embedding else "pixels"
        return layout + source, stride, place

    @property
    def promises(self) -> list[Callable[[], None]]:
        return [
            self.wrapped_logits_are_its_own,
            self.class_logits_are_the_class_heads_own,
            self.exchanging_all_tokens_exchanges_the_images,
            self.mixing_part_of_the_tokens_is_seen,
            self.gradients_reach_every_parameter,
            self.one_step_lowers_the_loss,
        ]


@pytest.mark.parametrize("family", EVERY_RUN)
def test_some_families(family: str) -> None:
    for promise in Student(*FAMILIES[family]).promises:
        promise()


@pytest.mark.parametrize("family", TWO_KINDS_OF_HEADS)
def test_class_and_token_heads_are_kept_apart(family: str) -> None:
    student = Student(*FAMILIES[family])
    student.wrapped_logits_are_its_own()
    student.class_logits_are_the_class_heads_own()


def test_heads_in_distilled_training_are_averaged() -> None:
    student = Student(*FAMILIES["DeiT (distilled)"])
    student.backbone.set_distilled_training(True)
    student.class_logits_are_the_class_heads_own()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, record_property: Callable[[str, Any], None]) -> None:
    name, arguments = FAMILIES[family]
    student = Student(name, arguments)
    for promise in student.promises:
        promise()
    reason = NOT_ONE_GRAPH.get(family)
    if reason:
        with pytest.raises(Exception, match=re.escape(reason)):
            student.compiles_in_one_graph()
    else:
        student.compiles_in_one_graph()
    record_property("family", (len(FAMILIES), family, name, *student.facts(), reason or "yes"))
