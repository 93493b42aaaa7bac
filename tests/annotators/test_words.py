"""Visual words: labels of any network with patch features, of images with or without classes."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import tokenlabel as tl
from tokenlabel.annotators import word_model
from tokenlabel.annotators.features import PatchFeatures
from tokenlabel.annotators.kinds import read_spec
from tokenlabel.annotators.kmeans import nearest_center, spherical_kmeans
from tokenlabel.cli.main import main
from tokenlabel.data.decode import decode_image
from tokenlabel.data.open import open_source
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore
from tokenlabel.labels.maintain import merge, verify
from tokenlabel.labels.manifest import Manifest
from tokenlabel.models import weights as weights_module

NETWORK = {"image_size": 32, "device": "cpu"}
SPEC = {
    "kind": "words", "model": "test_resnet", "pretrained": False, "words": 6, "perplexity": 2.0,
    "checkpoint": None, "network": NETWORK, "model_kwargs": {"output_stride": 8},
}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """One network's weights: an annotator that is built twice must be the same."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "network.pth"
    torch.save(timm.create_model("test_resnet", output_stride=8).state_dict(), file)
    return file


def annotate(images: Path, output: Path, weights: Path, **changes) -> Manifest:
    spec = {**SPEC, "checkpoint": str(weights)} | changes
    return tl.annotate(data=str(images), output=output, annotator=spec, batch_size=4, shard_size=8)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix != ".tmp"}


# -- groups of features ----------------------------------------------------------------------------


def test_groups_are_found_and_none_is_empty() -> None:
    random_ = torch.Generator().manual_seed(0)
    middles = F.normalize(torch.randn(12, 16, generator=random_), dim=1)
    noise = 0.1 * torch.randn(1200, 16, generator=random_)
    rows = F.normalize(middles.repeat(100, 1) + noise, dim=1)
    centers = spherical_kmeans(rows, 12, seed=1)
    assert torch.allclose(centers.norm(dim=1), torch.ones(12))
    found = (middles @ centers.T).max(1)
    assert (found.values > 0.97).sum() >= 10  # nearly every true group has its own center
    many = spherical_kmeans(rows, 300)
    assert torch.bincount(nearest_center(rows, many)[0], minlength=300).min() > 0
    assert torch.equal(many, spherical_kmeans(rows, 300))
    assert spherical_kmeans(rows[:3].repeat(50, 1), 4) is None


def test_equal_rows_do_not_use_up_the_groups() -> None:
    """Borders and blank skies are the same patch over and over."""
    random_ = torch.Generator().manual_seed(0)
    rows = F.normalize(torch.randn(1000, 16, generator=random_), dim=1)
    rows[::2] = rows[0]
    centers = spherical_kmeans(rows, 200)
    members = torch.bincount(nearest_center(rows, centers)[0], minlength=200)
    assert members.min() > 0
    others = members[members < 400]  # of the 500 different rows
    assert others.max() < 20
    few = rows[1:12:2].repeat(200, 1)  # 6 rows
    assert torch.bincount(nearest_center(few, spherical_kmeans(few, 6))[0]).tolist() == [200] * 6
    assert spherical_kmeans(few, 7) is None


# -- a store of words ------------------------------------------------------------------------------


def test_a_cell_is_labeled_with_its_nearest_words(images, tmp_path, weights) -> None:
    manifest = annotate(images, tmp_path / "store", weights)
    store = LabelStore(tmp_path / "store")
    assert manifest.words
    assert (store.num_classes, manifest.class_names, len(store)) == (6, None, 22)
    words = store.vocabulary
    assert len(words) == 6
    annotator = read_spec(SPEC | {"checkpoint": str(weights)}).build(())
    annotator.use(words)
    source = open_source(str(images))
    pixels = decode_image(source.read(3), "")
    item = annotator.prepare("", pixels)
    features = annotator._words.features(annotator._normalize(item[0][None]))[0]
    cosines = F.normalize(features - words.mean, dim=-1) @ words.centers.T
    label = store[source.keys[3]]
    assert torch.equal(label.classes[0], cosines.argmax(-1))
    expected = (cosines / words.temperature).softmax(-1).topk(5).values.permute(2, 0, 1)
    assert (label.probabilities() - expected).abs().max() < 0.01


def test_words_are_learned_before_anything_is_labeled(images, weights, monkeypatch) -> None:
    annotator = read_spec(SPEC | {"checkpoint": str(weights)}).build(())
    monkeypatch.setattr(annotator, "annotate", None)
    monkeypatch.setattr(annotator, "batch_size", None)
    words = annotator.learn(open_source(str(images)))
    assert len(words) == 6
    # scores are in single precision where the network's arithmetic is in half
    annotator.use(words)
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = annotator._words.features(pixels)
        assert features.dtype == torch.bfloat16
        scores = annotator._words(pixels)
    assert torch.equal(scores, words.scores(features))


def test_the_arithmetic_is_settled_before_there_are_words(weights) -> None:
    """On an accelerator too, whose batch size only labeling itself can tell."""
    network = {"image_size": 32, "device": "meta"}
    spec = read_spec(SPEC | {"checkpoint": str(weights), "network": network})
    annotator = spec.build(())
    annotator.settle_arithmetic("auto", 1000)
    assert annotator.vocabulary is None
    assert annotator.description["dtype"] == "float32"


def test_the_temperature_gives_the_perplexity() -> None:
    cosines = torch.rand(200, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for wanted in (1.5, 4.0, 12.0):
        log = (cosines / word_model._temperature(cosines, wanted)).log_softmax(1)
        entropy = -(log.exp() * log).sum(1).mean()
        assert entropy.exp() == pytest.approx(wanted, rel=1e-3)


def test_kills_change_nothing(images, tmp_path, weights) -> None:
    annotate(images, tmp_path / "whole", weights)
    folder, rng = tmp_path / "killed", random.Random(0)
    fork = multiprocessing.get_context("fork")
    for _ in range(6):
        process = fork.Process(target=annotate, args=(images, folder, weights))
        process.start()
        time.sleep(rng.uniform(0.1, 0.6))
        process.kill()
        process.join()
    annotate(images, folder, weights)
    assert contents(folder) == contents(tmp_path / "whole")


def _as_rank(images: Path, folder: Path, weights: Path, rank: int) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    annotate(images, folder, weights)


def test_ranks_learn_the_words_once(images, tmp_path, weights) -> None:
    annotate(images, tmp_path / "whole", weights)
    folder = tmp_path / "shared"
    fork = multiprocessing.get_context("fork")
    ranks = [
        fork.Process(target=_as_rank, args=(images, folder, weights, rank)) for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    assert contents(folder) == contents(tmp_path / "whole")


def test_another_store_takes_the_same_words_and_joins(images, tmp_path, weights, capsys) -> None:
    annotate(images / "cat", tmp_path / "cats", weights)
    changes = {"vocabulary": str(tmp_path / "cats"), "words": None}
    annotate(images / "dog", tmp_path / "dogs", weights, **changes)
    cats, dogs = LabelStore(tmp_path / "cats"), LabelStore(tmp_path / "dogs")
    assert cats.vocabulary.sha256 == dogs.vocabulary.sha256
    merge([cats, dogs], tmp_path / "both")
    both = LabelStore(tmp_path / "both")
    assert len(both) == len(cats) + len(dogs)
    assert both.vocabulary.sha256 == cats.vocabulary.sha256
    assert verify(both) == []
    annotate(images / "owl", tmp_path / "owls", weights, seed=1)
    with pytest.raises(InputError, match=r"different vocabularies: .*--vocabulary .*cats"):
        merge([cats, LabelStore(tmp_path / "owls")], tmp_path / "wrong")


def test_words_go_on_at_another_size(images, tmp_path) -> None:
    """Weights are the same whatever size their position embeddings are resampled to."""
    file = tmp_path / "vit.pth"
    torch.save(timm.create_model("test_vit").state_dict(), file)
    network = {"model": "test_vit", "model_kwargs": {}}
    small, large = ({"image_size": side, "device": "cpu"} for side in (32, 64))
    annotate(images, tmp_path / "small", file, network=small, **network)
    reuse = {"vocabulary": str(tmp_path / "small"), "words": None}
    annotate(images, tmp_path / "large", file, network=large, **network, **reuse)
    first, second = (LabelStore(tmp_path / name) for name in ("small", "large"))
    assert first.vocabulary.sha256 == second.vocabulary.sha256
    assert [store[store.keys()[0]].grid for store in (first, second)] == [(2, 2), (4, 4)]


def test_words_are_those_of_the_weights_that_make_features(images, tmp_path, monkeypatch) -> None:
    """A file without a head leaves the head random: another one in every process."""
    file = tmp_path / "headless.pth"
    torch.save(timm.create_model("test_resnet", output_stride=8, num_classes=0).state_dict(), file)
    reuse = {"vocabulary": str(tmp_path / "once"), "words": None}
    with monkeypatch.context() as before:  # as stores were made when heads counted
        before.setattr(weights_module, "head_names", lambda _: set())
        whole = tmp_path / "whole.pth"
        torch.save(timm.create_model("test_resnet", output_stride=8).state_dict(), whole)
        annotate(images, tmp_path / "old", whole)
    annotate(images, tmp_path / "once", file)
    first = contents(tmp_path / "once")
    annotate(images, tmp_path / "once", file)
    assert contents(tmp_path / "once") == first
    annotate(images / "cat", tmp_path / "more", file, **reuse)
    annotate(images, tmp_path / "new", whole, vocabulary=str(tmp_path / "old"), words=None)


def test_as_many_patches_are_seen_as_are_asked_for(images, tmp_path, weights, monkeypatch) -> None:
    monkeypatch.setattr(word_model, "_FEWEST_IMAGES", 1)
    annotate(images, tmp_path / "store", weights, patches=300)  # 16 cells an image: 19 images
    assert LabelStore(tmp_path / "store").vocabulary.made["patches_seen"] == 304
    with pytest.raises(
        InputError, match="6 words cannot be learned from 5 patches: give more --patc"
    ):
        read_spec(SPEC | {"model": "no such network", "patches": 5}).build(())


def test_mistakes_are_named_and_leave_nothing(images, tmp_path, weights) -> None:
    output = tmp_path / "store"
    with pytest.raises(InputError, match=r"500 words cannot be learned from \d+ patches"):
        annotate(images, output, weights, words=500)
    assert not output.exists()
    with pytest.raises(InputError, match=r"--perplexity 2 must be below the number of words \(2\)"):
        annotate(images, output, weights, words=2)
    annotate(images, output, weights)
    with pytest.raises(InputError, match="started with 6 words, now it is 7: give --words 6"):
        annotate(images, output, weights, words=7)
    other = tmp_path / "other.pth"
    torch.save(timm.create_model("test_resnet", output_stride=8).state_dict(), other)
    reuse = {"vocabulary": str(output), "words": None}
    with pytest.raises(InputError, match="those of another model or other weights"):
        annotate(images, tmp_path / "x", other, **reuse)
    with pytest.raises(InputError, match="has 6 words, not 7"):
        annotate(images, tmp_path / "x", weights, vocabulary=str(output), words=7)
    (output / "vocabulary.safetensors").write_bytes(b"nonsense")
    assert "vocabulary" in verify(LabelStore(output))[0]
    with pytest.raises(InputError, match="damaged"):
        annotate(images, output, weights)


def test_a_store_of_classes_is_no_vocabulary(images, tmp_path, weights, make_labels) -> None:
    classes = make_labels()
    with pytest.raises(InputError, match="labels of classes: name a store made with --words"):
        annotate(images, tmp_path / "x", weights, vocabulary=classes.location, words=None)
    with pytest.raises(InputError, match="labels of classes: choose another"):
        annotate(images, Path(classes.location), weights)


def test_the_option_chooses_the_verb(images, tmp_path, weights, capsys) -> None:
    words = [
        "annotate", "--data", images, "--output", tmp_path / "store", "--model", "test_resnet",
        "--checkpoint", weights, "--model-kwargs", "output_stride", 8, "--words", 6, "--perplexity",
        2.0, "--image-size", 32, "--device", "cpu",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as exit_:
        main([str(word) for word in words])
    assert exit_.value.code == 0
    assert LabelStore(tmp_path / "store").manifest.words


# -- networks --------------------------------------------------------------------------------------


class Trunk(nn.Module):
    """No timm model: images to a map."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.convolution(images)


class Classifier(Trunk):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).mean((2, 3))


def test_a_module_of_ones_own_needs_a_map() -> None:
    assert PatchFeatures(Trunk()).shape((32, 48)) == (8, 12, 8)
    assert PatchFeatures(nn.AvgPool2d(8)).shape((32, 48)) == (4, 6, 3)  # without parameters
    with pytest.raises(InputError, match="has no patch features"):
        PatchFeatures(Classifier()).shape((32, 32))
    one_cell = "ResNet makes one cell of an image of 32x32 pixels: give a larger --image-size"
    with pytest.raises(InputError, match=one_cell):
        PatchFeatures(timm.create_model("test_resnet")).shape((32, 32))


# the forms of what people annotate with, without heads, tiny, with random weights
FORMS = {
    "vit_small_patch14_reg4_dinov2.lvd142m": {"embed_dim": 32, "depth": 1, "num_heads": 2},
    "vit_small_patch16_dinov3.lvd1689m": {"embed_dim": 32, "depth": 1, "num_heads": 2},
    "vit_base_patch16_siglip_224.v2_webli": {"embed_dim": 32, "depth": 1, "num_heads": 2},
    "eva02_tiny_patch14_224.mim_in22k": {"embed_dim": 64, "depth": 1, "num_heads": 2},
    "convnext_tiny.dinov3_lvd1689m": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 24]},
}


def pixels_a_cell(name: str) -> int:
    return 14 if "patch14" in name else 32 if "convnext" in name else 16


@pytest.mark.parametrize("name", FORMS)
def test_features_of_the_networks_people_have(name) -> None:
    model = timm.create_model(name, **FORMS[name]).eval()
    assert model.num_classes == 0
    cell = pixels_a_cell(name)
    if hasattr(model, "set_input_size"):
        model.set_input_size(img_size=(8 * cell, 6 * cell))
    features = PatchFeatures(model)
    rows, columns, _ = features.shape((8 * cell, 6 * cell))
    assert (rows, columns) == (8, 6)
    images = torch.randn(1, 3, 8 * cell, 6 * cell)
    with torch.no_grad():
        found, (last,) = (
            features(images),
            model.forward_intermediates(images, indices=1, intermediates_only=True, norm=True),
        )
    assert torch.allclose(found, last.permute(0, 2, 3, 1), atol=1e-5)


@pytest.mark.parametrize("name", FORMS)
def test_the_verb_labels_with_the_networks_people_have(name, images, tmp_path) -> None:
    output, kwargs = (
        tmp_path / "store",
        [str(part) for item in FORMS[name].items() for part in item],
    )
    words = [
        "annotate", "words", "--data", str(images), "--output", str(output), "--model", name,
        "--no-pretrained", "--model-kwargs", *kwargs, "--words", "6", "--perplexity", "2.0",
        "--image-size", str(3 * pixels_a_cell(name)), "--device", "cpu",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 0
    store, width = LabelStore(output), FORMS[name].get("embed_dim", 24)
    assert (store.manifest.complete, store.num_classes, len(store)) == (True, 6, 22)
    assert store.vocabulary.centers.shape == (6, width)
    assert store.manifest.vocabulary_sha256 == store.vocabulary.sha256
    assert store.vocabulary.made["model"] == name.partition(".")[0]
    for key in store:
        label = store[key]
        assert label.grid == (3, 3)
        assert label.probabilities().isfinite().all()
