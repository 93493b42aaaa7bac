"""ReLabel, STL and the comparison's arms, from recipe to finished run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel.annotators.classifier import ClassifierSpec
from tokenlabel.annotators.online import OnlineLabels
from tokenlabel.data.open import open_source
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStoreWriter
from tokenlabel.runs.open import open_run
from tokenlabel.runs.recipe import (
    Augment,
    Checkpoints,
    Data,
    Engine,
    Mixing,
    Model,
    Optimizer,
    Recipe,
    Schedule,
)
from tokenlabel.supervision import Distillation, GroundTruth, TokenLabels
from tokenlabel.training import loop
from tokenlabel.training.student import train

SMALL = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/CLASS/*.png, tinted by class, and labels/, which leave one image out."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for number, label in enumerate(("cat", "cow", "dog")):
        (folder / "images" / label).mkdir(parents=True)
        for i in range(9):
            pixels = random.integers(120, size=(40, 52, 3), dtype=np.uint8)
            pixels[..., number] += 100
            Image.fromarray(pixels).save(folder / "images" / label / f"{i}.png")
    source = open_source(str(folder / "images"))
    writer = LabelStoreWriter(folder / "labels", num_classes=3)
    noise = torch.Generator().manual_seed(0)
    for key, label in zip(source.keys, source.labels, strict=True):
        if key == "cow/3.png":
            writer.leave_out(key, "too dark to tell")
            continue
        logits = torch.randn(3, 5, 5, generator=noise)
        logits[label] += 4
        writer.add(key, LabelMap.from_logits(logits, 2, Box()))
    writer.close()
    return folder


def small(data: Path, **changes: Any) -> Recipe:
    recipe = Recipe(
        data=Data(train=str(data / "images"), labels=str(data / "labels"), workers=0),
        augment=Augment(scale=(0.5, 1.0)),
        model=Model(name="deit_tiny_patch16_224", image_size=32, kwargs=SMALL),
        optimizer=Optimizer(lr=2e-3),
        schedule=Schedule(batch_size=8, epochs=2, warmup_epochs=1, cooldown_epochs=0),
        engine=Engine(device="cpu", device_batch=8),
        checkpoints=Checkpoints(every_minutes=60),
        trackers=(),
        log_every=1,
    )
    return dataclasses.replace(recipe, **changes)


@pytest.mark.parametrize("model", ["deit_tiny_patch16_224", "test_resnet"])
def test_relabel_trains_an_ordinary_classifier_with_cutmix(
    data: Path, tmp_path: Path, model: str
) -> None:
    kwargs = {"heads": "class", **(SMALL if "deit" in model else {})}
    recipe = small(
        data,
        model=Model(name=model, image_size=32, kwargs=kwargs),
        supervision=Distillation(distillation_share=1.0, smoothing=0.0),
        mixing=Mixing(kind="cutmix"),
    )
    result = train(recipe, tmp_path / "run")
    assert [entry["loss"] for entry in result.metrics if "loss" in entry]
    assert "token" not in result.metrics[0]
    assert "aux_head" not in " ".join(_weights(tmp_path / "run"))


def test_a_chain_of_self_emerging_token_labels(data: Path, tmp_path: Path) -> None:
    """A student with both heads labels the clean views of the next one, which has both heads too."""
    teacher = tmp_path / "teacher"
    train(small(data), teacher)
    labels = OnlineLabels(ClassifierSpec(model=str(teacher)).build(["cat", "cow", "dog"]))
    seen: list[torch.Tensor] = []

    def label(images: torch.Tensor) -> Sequence[LabelMap]:
        seen.append(images)
        return labels(images)

    method = TokenLabels(online=True, token_classes="drawn")
    augment = Augment(scale=(0.5, 1.0), erasing=1.0)
    recipe = small(data, supervision=method, augment=augment)
    result = train(recipe, tmp_path / "student", annotator=label)
    losses = [entry for entry in result.metrics if "loss" in entry]
    assert all(entry["token"] > 0 for entry in losses)
    assert len(seen) == len(losses) == 6
    again = ClassifierSpec(model=str(tmp_path / "student")).build(["cat", "cow", "dog"])
    assert again.num_classes == 3  # and may teach in its turn
    assert again.description["kind"] == "student"


def test_all_arms_train_on_the_images_that_have_labels(data: Path, tmp_path: Path) -> None:
    """Also the one that learns from the ground truth alone."""
    methods = (GroundTruth(), Distillation(), TokenLabels())
    for method in methods:
        result = train(small(data, supervision=method), tmp_path / method.kind)
        facts = open_run(tmp_path / method.kind).facts
        assert (facts["images"], facts["left_out"]) == (26, {"by the annotator": 1})
        assert result.results["supervision"] == method.kind
    alone = small(data, supervision=GroundTruth())
    alone = dataclasses.replace(alone, data=dataclasses.replace(alone.data, labels=None))
    train(alone, tmp_path / "alone")
    assert open_run(tmp_path / "alone").facts["images"] == 27


def _weights(run: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(open_run(run).weights("model"), "pt") as file:
        return list(file.keys())
