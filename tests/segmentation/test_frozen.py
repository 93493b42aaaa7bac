"""Linear heads and frozen backbones: what trains, what is kept, what is said."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tokenlabel.api import segment
from tokenlabel.cli.main import main
from tokenlabel.data.order import BatchOrder
from tokenlabel.errors import InputError
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap
from tokenlabel.models import build_model
from tokenlabel.runs.recipe_file import read_recipe
from tokenlabel.runs.results import read_metrics
from tokenlabel.segmentation.augment import PairAugmentation
from tokenlabel.segmentation.dataset import Samples, SoftScenes
from tokenlabel.segmentation.features import FeatureLoader, kept_bytes
from tokenlabel.segmentation.model import SegmentationModel
from tokenlabel.segmentation.pairs import open_pairs
from tokenlabel.segmentation.recipe import HeadKind, SegmentationRecipe
from tokenlabel.segmentation.task import SegmentationTask
from tokenlabel.segmentation.trained import create_segmenter, load_segmenter

PAGE = Path(__file__).parents[2] / "docs" / "segmentation.md"

FROZEN = (
    "augment.crop=[32, 32]", "augment.color=false", "test.short_side=48", "test.window=null",
    "model.kwargs={depth: 4, embed_dim: 24, num_heads: 2, stem_width: 8, patch_size: 8}",
    "schedule.batch_size=4", "schedule.warmup_updates=0", "loss.class_balance=0",
    "optimizer.lr=0.05", "engine.precision=fp32", "data.workers=0", "trackers=[]",
)  # fmt: skip


def train(scenes: Path, output: Path, *more: str, **choices: Any) -> dict[str, Any]:
    given = {"head": "linear", "backbone": "lvvit_t", "updates": 30, "freeze_backbone": True}
    result = segment.train(
        data=scenes, output=output, recipe="camvid_cpu", settings=(*FROZEN, *more),
        **(given | choices),
    )  # fmt: skip
    return result.results


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_segmenter(run).model.state_dict()


def test_a_head_learns_on_a_frozen_backbone(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = train(scenes, tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert "lvvit_t is frozen with RANDOM weights" in said
    assert "features of 8 images x 4 views are made once, and kept in 0.0 GB" in said
    assert results["measures"]["val/pixel_accuracy"] > 0.6
    train(scenes, tmp_path / "start", "schedule.max_steps=1", "optimizer.lr=1e-9")
    before, after = weights(tmp_path / "start"), weights(tmp_path / "run")
    changed = {name for name in after if not torch.allclose(after[name], before[name], atol=1e-6)}
    assert changed == {
        *(f"decode_head.classifier.{part}" for part in ("weight", "bias")),
        *(f"decode_head.norm.{part}" for part in ("weight", "bias", "running_mean", "running_var",
                                                  "num_batches_tracked")),
    }  # fmt: skip
    eight = segment.evaluate(data=scenes, checkpoint=tmp_path / "run")
    assert eight.pixel_accuracy == pytest.approx(results["measures"]["val/pixel_accuracy"])


def test_kept_features_train_as_the_images_do(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the rounding of features to half precision, and with one look at each view."""
    looks: list[int] = []
    features = SegmentationModel.features

    def counted(self: SegmentationModel, images: torch.Tensor) -> list[torch.Tensor]:
        if images.device.type != "meta" and self.training:
            looks.append(len(images))
        return features(self, images)

    monkeypatch.setattr(SegmentationModel, "features", counted)
    head = {"head": "upernet", "updates": 6}
    more = ("augment.views=1", "model.channels=8", "optimizer.lr=1e-3", "log_every=1")
    train(scenes, tmp_path / "kept", *more, **head)
    assert looks == [1] * 8
    monkeypatch.setattr("tokenlabel.segmentation.run.SegmentationSpec._features", lambda *_: None)
    train(scenes, tmp_path / "seen", *more, **head)
    assert looks[8:] == [4] * 6
    kept, seen = (
        [entry["loss"] for entry in read_metrics(tmp_path / run) if "loss" in entry]
        for run in ("kept", "seen")
    )
    assert len(kept) == 6
    assert kept == pytest.approx(seen, rel=1e-3)


def test_features_are_made_in_the_arithmetic_of_the_training(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of the batch on which the arithmetic was tried."""
    half: list[bool] = []
    features = SegmentationTask.features

    def spied(self: SegmentationTask, images: torch.Tensor) -> list[torch.Tensor]:
        half.append(torch.is_autocast_enabled("cpu"))
        return features(self, images)

    monkeypatch.setattr(SegmentationTask, "features", spied)
    monkeypatch.setattr(
        "tokenlabel.training.precision.quicker_arithmetic", lambda *_, **__: torch.bfloat16
    )
    train(scenes, tmp_path / "run", "engine.precision=auto", "augment.views=1", updates=3)
    assert half == [False] * 4 + [True] * 8


def test_memory_is_counted_as_it_is_used(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features, labels and soft labels of every view, in each process of a machine."""
    for number in range(5):
        (scenes / "annotations" / "training" / f"s{number}.png").unlink()
    pairs, crop = open_pairs(scenes, "training"), (32, 48)
    cells = torch.zeros(1, 4, 4)
    soft: Any = dict.fromkeys(
        (p.key for p in pairs.unmasked), LabelMap(cells, cells.long(), cells[0], Box(), 3)
    )
    augment = PairAugmentation(crop=crop, short_side=48)
    samples = Samples(pairs, augment, 0, 2, SoftScenes(pairs.unmasked, soft, mask_repeats=2))
    model = SegmentationModel(build_model("resnet10t", any_size=True), 3, head="linear").eval()
    loader = FeatureLoader(
        samples,
        BatchOrder(np.arange(len(samples)), 11),
        0,
        lambda images: model.features(images.float()),
    )
    for epoch in range(2):
        list(loader.epoch(epoch))
    kept = 0
    for sample, maps in loader._known.values():
        parts = [sample.image, sample.labels, *maps]
        parts += [] if sample.soft is None else [sample.soft]
        kept += sum(part.nbytes for part in parts)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert kept_bytes(model, crop, 2 * 3 * 2, 5 * 2) == 2 * kept


def test_features_that_half_precision_cannot_hold_stay_finite(scenes: Path) -> None:
    pairs = open_pairs(scenes, "training")
    samples = Samples(pairs, PairAugmentation(crop=(32, 48), short_side=48), 0, 1)
    order = BatchOrder(np.arange(len(samples)), len(samples))
    huge = torch.tensor([-1e6, 2.0, 1e6]).expand(1, 1, 1, 3)
    (batch,) = FeatureLoader(samples, order, 0, lambda _: [huge]).epoch(0)
    assert batch.features is not None
    assert batch.features[0][0].flatten().tolist() == [-65504, 2, 65504]


def test_features_beyond_the_memory_are_refused(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"features of 8,000,000,000,000 views would take"):
        train(scenes, tmp_path / "run", "augment.views=1000000000000")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("head", "maps"), [("linear", 1), ("linear4", 4)])
@pytest.mark.parametrize(
    ("name", "arguments", "last"),
    [
        ("vit_tiny_patch16_224", {"depth": 5, "embed_dim": 24, "num_heads": 2}, 24),
        ("resnet10t", {"channels": [8, 8, 16, 32], "stem_width": 8}, 32),
    ],
)
def test_linear_heads_see_the_last_map_or_four(
    name: str, arguments: dict[str, Any], last: int, head: HeadKind, maps: int
) -> None:
    model = SegmentationModel(build_model(name, any_size=True, **arguments), 5, head=head).eval()
    images = torch.randn(2, 3, 50, 71)
    output = model.forward_heads(images)
    assert output.logits.shape == (2, 5, 50, 71)
    assert output.auxiliary is None
    assert len(model.pyramid.channels) == maps
    assert model.pyramid.channels[-1] == last
    assert {n.rpartition(".")[0] for n, _ in model.named_parameters()
            if "backbone" not in n} == {"decode_head.classifier", "decode_head.norm"}  # fmt: skip


def test_a_plain_backbone_gives_its_last_blocks_behind_the_norm() -> None:
    backbone = build_model(
        "vit_tiny_patch16_224", any_size=True, img_size=64, depth=5, embed_dim=24, num_heads=2
    ).eval()
    images = torch.randn(1, 3, 64, 64)
    tokens = backbone.forward_features(images)[:, 1:]
    for head in ("linear", "linear4"):
        maps = SegmentationModel(backbone, 3, head=head).eval().features(images)  # type: ignore[arg-type]
        assert torch.allclose(maps[-1].flatten(2).mT, tokens, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        ("vit_small_patch14_dinov2", 14),
        ("vit_small_patch16_dinov3", 16),
        ("vit_base_patch16_siglip_224", 16),
        ("vit_so400m_patch14_siglip_384", 14),
    ],
)
def test_towers_of_any_patch_take_any_crop(
    name: str, patch: int, make_recipe: Callable[..., Any]
) -> None:
    with torch.device("meta"):
        model = create_segmenter(make_recipe(name), 7).eval()
        scores = model(torch.empty(1, 3, 100, 130))
    assert scores.shape == (1, 7, 100, 130)
    assert model.pyramid.divisor == patch


@pytest.fixture
def make_recipe() -> Callable[..., Any]:
    return lambda name: segment.compose_recipe(
        recipe="camvid_cpu", backbone=name, head="linear",
        settings=("augment.crop=[100, 130]",),
    )  # fmt: skip


def test_the_documented_probe_builds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page's command as it stands, up to the weights, which would have to be downloaded."""
    section = PAGE.read_text().partition("## Frozen backbones")[2]
    block = re.search(r"```console\n\$ tokenlabel (.*?)```", section, re.S)
    assert block is not None
    with pytest.raises(SystemExit) as ended:
        main([*shlex.split(block[1].replace("\\\n", " ")), "--show"])
    assert not ended.value.code
    file = tmp_path / "recipe.yaml"
    file.write_text(capsys.readouterr().out)
    recipe = read_recipe(file, SegmentationRecipe)
    assert (recipe.model.head, recipe.model.freeze, recipe.model.weights) == (
        "linear", True, "pretrained",
    )  # fmt: skip
    assert (recipe.augment.views, recipe.optimizer.lr) == (None, 1e-3)
    assert recipe.schedule.updates <= 5000
    with torch.device("meta"):
        model = create_segmenter(recipe, 150)
    assert model.pyramid.divisor == 14


def test_another_backbone_leaves_the_arguments_of_the_recipes_own() -> None:
    """These fit their own backbone only; what is given with the other one stays."""
    published = segment.compose_recipe().model
    assert published.kwargs == {"norm_eps": 1e-6}
    assert published.drop_path == 0.1
    other = segment.compose_recipe(backbone="vit_small_patch14_dinov2").model
    assert (other.kwargs, other.drop_path, other.channels) == ({}, 0.0, published.channels)
    given = ("model.backbone=resnet10t", "model.kwargs={stem_width: 16}", "model.drop_path=0.2")
    other = segment.compose_recipe(settings=given).model
    assert (other.kwargs, other.drop_path) == ({"stem_width": 16}, 0.2)
    same = segment.compose_recipe(backbone=published.backbone).model
    assert same == published
