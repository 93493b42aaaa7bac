"""Students, image-text models and taught classifiers as annotators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.models import VisionTransformer
from torch.nn import functional as F

from tokenlabel.annotators.classifier import ClassifierSpec
from tokenlabel.annotators.patch_text import PatchTextScores
from tokenlabel.annotators.spec import Network
from tokenlabel.annotators.text import TextSpec, text_annotator
from tokenlabel.api.teach import teach
from tokenlabel.data.open import open_source
from tokenlabel.errors import InputError
from tokenlabel.models import DenseModel

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def student_of(weights):
    """The token head of a file of weights of ViT-Ti, which labels with its own classes."""
    return ClassifierSpec(
        model="vit_tiny_patch16_224",
        checkpoint=weights,
        head="token",
        keep_classes=True,
        network=Network(image_size=64),
    ).build(())


def test_a_students_token_head_labels(tmp_path) -> None:
    torch.manual_seed(0)
    student = DenseModel("vit_tiny_patch16_224", 6, img_size=64).eval()
    torch.save({"state_dict": student.state_dict()}, tmp_path / "student.pth")
    annotator = student_of(tmp_path / "student.pth")
    image, extent = annotator.prepare("", PIXELS)
    (label,) = annotator.annotate([(image, extent)])
    p = annotator.preprocessing
    mean, std = (torch.tensor(v)[:, None, None] for v in (p.mean, p.std))
    with torch.inference_mode():
        tokens = student(((image / 255 - mean) / std)[None]).tokens[0]
    assert label.grid == (4, 4)
    torch.testing.assert_close(
        label.scores, tokens.permute(2, 0, 1).topk(5, 0).values, atol=1e-4, rtol=1e-4
    )


def test_a_student_without_token_labels_is_refused(tmp_path) -> None:
    import timm

    plain = timm.create_model("vit_tiny_patch16_224", num_classes=6, img_size=64)
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    with pytest.raises(InputError, match="trained without token labels"):
        student_of(tmp_path / "plain.pth")


def small_clip():
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    return open_clip.CLIP(48, vision, text).eval()


def test_patches_are_scored_against_texts() -> None:
    model = small_clip()
    texts = F.normalize(torch.randn(3, 48), dim=-1)
    with torch.inference_mode():
        scores = PatchTextScores(model, texts)(torch.randn(2, 3, 32, 32))
    assert scores.shape == (2, 4, 4, 3)
    assert scores.abs().max() <= model.logit_scale.exp() * 1.001
    assert scores.std((1, 2)).min() > 0


def test_a_patch_sees_its_own_place_only_in_the_last_layer() -> None:
    # with all layers but the last cut out, what a far patch shows cannot change a patch's score
    model = small_clip()
    model.visual.transformer.resblocks = model.visual.transformer.resblocks[-1:]
    scores = PatchTextScores(model, F.normalize(torch.randn(3, 48), dim=-1))
    image = torch.randn(1, 3, 32, 32)
    changed = image.clone()
    changed[:, :, :8, :8] = 0
    with torch.no_grad():
        difference = (scores(image) - scores(changed)).abs().sum(-1)[0]
    assert difference[0, 0] > 1e-3
    difference[0, 0] = 0
    assert difference.max() < 1e-4


def small_siglip():
    """SigLIP in small: a timm tower that pools by attention, logits with a scale and a bias."""
    timm_model = pytest.importorskip("open_clip.timm_model")
    torch.manual_seed(0)
    tower = timm_model.TimmModel("vit_tiny_patch16_224", 192, 32, pool="token", proj="none")
    tower.trunk = VisionTransformer(
        img_size=32, patch_size=8, num_classes=0, global_pool="map", class_token=False,
        embed_dim=48, depth=2, num_heads=2,
    )  # fmt: skip
    tower.preprocess_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    model = torch.nn.Module()
    model.visual = tower
    model.logit_scale = torch.nn.Parameter(torch.tensor(2.0))
    model.logit_bias = torch.nn.Parameter(torch.tensor(-10.0))
    model.encode_text = lambda texts, normalize: F.normalize(texts, dim=-1)
    return model.eval()


def test_siglip_scores_patches_through_its_own_pooling() -> None:
    model = small_siglip()
    texts = F.normalize(torch.randn(3, 48), dim=-1)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        scores = PatchTextScores(model, texts)(images)
        tokens = model.visual.trunk.forward_features(images)
        # what the model answers where its pooling sees patch (1, 2) alone
        alone = F.normalize(model.visual.trunk.forward_head(tokens[:, 6:7]), dim=-1)
        expected = model.logit_scale.exp() * alone @ texts.T + model.logit_bias
    assert scores.shape == (2, 4, 4, 3)
    torch.testing.assert_close(scores[:, 1, 2], expected)
    assert scores.std((1, 2)).min() > 0


@pytest.mark.parametrize(("factor", "cells"), [(1.0, 4), (1.5, 6)])
def test_siglip_labels_by_class_names(factor, cells) -> None:
    spec = TextSpec(model="small", network=Network(top_k=2, size_factor=factor, device="cpu"))
    annotator = text_annotator(
        small_siglip(), lambda texts: torch.randn(len(texts), 48), spec, ["cat", "polar_bear"]
    )
    (label,) = annotator.annotate([annotator.prepare("", PIXELS)])
    assert label.grid == (cells, cells)
    torch.testing.assert_close(label.probabilities().sum(0), torch.ones(cells, cells))


def test_image_text_models_without_patches_are_refused() -> None:
    model = small_siglip()
    model.visual.trunk.global_pool = "token"
    with pytest.raises(InputError, match="no patches"):
        PatchTextScores(model, torch.randn(3, 48))


@pytest.mark.slow
def test_an_open_clip_model_labels_by_class_names() -> None:
    pytest.importorskip("open_clip")
    annotator = TextSpec(model="ViT-B-32", network=Network(top_k=2)).build(["cat", "polar_bear"])
    (label,) = annotator.annotate([annotator.prepare("", PIXELS)])
    assert label.grid == (7, 7)
    torch.testing.assert_close(label.probabilities().sum(0), torch.ones(7, 7))


def test_unknown_image_text_models_are_named() -> None:
    pytest.importorskip("open_clip")
    with pytest.raises(InputError, match=r"no model 'ViT-B-61' \(did you mean"):
        TextSpec(model="ViT-B-61").build(["cat"])


def test_a_taught_classifier_annotates_what_it_was_taught_on(tmp_path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(60):  # reddish or bluish noise
        pixels = rng.integers(0, 120, (24, 24, 3))
        pixels[..., 2 * (number % 2)] += 100
        path = tmp_path / "images" / ("red", "blue")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    source = open_source(str(tmp_path / "images"))
    options = {
        "data": str(tmp_path / "images"),
        "device": "cpu",
        "dtype": "float32",
        "model": "resnet10t",
        "pretrained": False,
        "model_kwargs": {"output_stride": 16, "stem_width": 8, "channels": (8, 16, 16, 32)},
        "image_size": 32,
        "batch_size": 8,
        "epochs": 8,
        "lr": 5e-3,
    }
    taught = teach(output=tmp_path / "teacher", **options)
    assert taught.held_out == 6
    assert taught.accuracy == 1.0
    annotator = ClassifierSpec(model=str(tmp_path / "teacher"), network=Network(top_k=2)).build(
        source.class_names
    )
    assert annotator.preprocessing.image_size == (32, 32)
    blue = rng.integers(0, 120, (24, 24, 3)).astype(np.uint8)
    blue[..., 2] += 100
    (label,) = annotator.annotate([annotator.prepare("", blue)])
    assert label.grid == (2, 2)
    assert (label.classes[0] == source.class_names.index("blue")).all()
    assert teach(output=tmp_path / "teacher", **options) == taught
    with pytest.raises(InputError, match="is not empty"):
        teach(output=tmp_path / "images", **options)
    with pytest.raises(InputError, match=r"unknown optimizer 'moun' \(did you mean 'muon'\?\)"):
        teach(output=tmp_path / "other", **options, opt="moun")
    assert not (tmp_path / "other").exists()
    with pytest.raises(InputError, match="does not know 1 of the data set's 2 classes"):
        ClassifierSpec(model=str(tmp_path / "teacher")).build(["red", "green"])
