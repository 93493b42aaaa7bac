"""Every recipe can be written, read, built, and trained for a few updates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel import recipes
from tokenlabel.data.open import open_source
from tokenlabel.errors import InputError
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStoreWriter
from tokenlabel.models import build_model
from tokenlabel.runs.recipe import Data
from tokenlabel.runs.recipe_file import read_recipe, to_yaml
from tokenlabel.training.optimize import parameter_groups
from tokenlabel.training.student import create_student, train

SIZES = {
    "lvvit_t_224": 8_534_720,
    "lvvit_s_224": 26_151_824,
    "lvvit_m_224": 55_830_544,
    "lvvit_l_288": 150_120_272,
}
# students of 32 x 32 pixels
SMALL_GRIDS = {
    "cifar10_lvvit": (8, 8),
    "cifar10_vit": (8, 8),
    "cifar10_swin": (4, 4),
    "cifar10_resnet": (4, 4),
}
# every kind of student, supervision and mixing once; the rest when there is time
ONE_OF_A_KIND = (
    "lvvit_t_224",
    "lvvit_s_transfer_released",
    "deit_small",
    "mixer_small_token_labels",
    "relabel_resnet50",
)
OTHERS = tuple(name for name in recipes.names() if name not in ONE_OF_A_KIND)


def slow(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Eight images of two classes, with label maps."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / "images" / label).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(256, size=(48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / label / f"{number}.png")
    writer = LabelStoreWriter(folder / "labels", num_classes=2)
    for key in open_source(str(folder / "images")).keys:
        writer.add(key, LabelMap.from_logits(torch.randn(2, 4, 4), 2, Box()))
    writer.close()
    return Data(train=str(folder / "images"), labels=str(folder / "labels"), workers=0)


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_says_where_it_comes_from(name: str) -> None:
    about = recipes.get(name).about
    assert about.command
    assert about.hardware
    assert name in ("finetune", "starter") or (
        about.paper and about.accuracy and name in about.command
    )


def test_defaults_for_own_images_are_those_of_the_proof() -> None:
    """docs/proof.md: token weight 2, blended class targets, MixToken in half of the steps."""
    for name in ("starter", "small"):
        recipe = recipes.get(name)
        supervision: Any = recipe.supervision
        assert (supervision.token_weight, supervision.class_target) == (2.0, "blend")
        assert (recipe.mixing.kind, recipe.mixing.probability) == ("mixtoken", 0.5)


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_survives_its_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipes.get(name)))
    assert read_recipe(tmp_path / "recipe.yaml") == recipes.get(name)


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_builds_its_backbone(name: str) -> None:
    """On the meta device: shapes without data."""
    model = recipes.get(name).model
    arguments = {**model.kwargs, "img_size": model.image_size, "drop_path_rate": model.drop_path}
    arguments.pop("heads", None)  # the student's, not the backbone's
    with torch.device("meta"):
        backbone = build_model(model.name, **arguments)
    parameters = sum(p.numel() for p in backbone.parameters())
    assert parameters == SIZES.get(name, parameters)
    grouped = [
        p for g in parameter_groups(backbone, recipes.get(name).optimizer) for p in g["params"]
    ]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(backbone.parameters()))


# rate, batch, epochs, warm-up, cool-down, warm-up rate, last rate, weight decay, average, test crop;
# as in the repositories that the recipes cite
SOURCES = {
    "lvvit_t_224": (1.6e-3, 1024, 300, 5, 10, 1e-6, 1e-5, 0.05, 0.99992, 0.9),
    "lvvit_s_224": (1.6e-3, 1024, 300, 5, 10, 1e-6, 1e-5, 0.05, 0.99992, 0.9),
    "lvvit_m_224": (1.6e-3, 1024, 300, 5, 10, 1e-6, 1e-5, 0.05, 0.99992, 1.0),
    "lvvit_l_288": (1e-3, 1024, 300, 5, 10, 1e-6, 1e-5, 0.05, 0.99992, 1.0),
    "lvvit_s_384": (5e-6, 512, 30, 5, 0, 1e-6, 5e-6, 1e-8, None, 0.9),
    "lvvit_m_448": (5e-6, 512, 30, 5, 0, 1e-6, 5e-6, 1e-8, None, 1.0),
    "lvvit_l_512": (5e-6, 512, 30, 5, 0, 1e-6, 5e-6, 1e-8, None, 1.0),
    "lvvit_s_transfer_released": (1.6e-3, 512, 300, 5, 10, 1e-6, 1e-5, 0.05, None, 0.9),
    "volo_d1_224": (1.6e-3, 1024, 300, 20, 10, 1e-6, 1e-5, 0.05, None, 0.96),
    "swin_tiny": (1e-3, 1024, 300, 20, 0, 1e-6, 1e-5, 0.05, None, 0.875),
    "deit_small": (1e-3, 1024, 300, 5, 0, 1e-6, 1e-5, 0.05, None, 0.875),
    "relabel_resnet50": (2e-3, 1024, 300, 5, 0, 0.0, 0.0, 0.01, None, 0.875),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_recipe_holds_the_values_of_its_source(name: str) -> None:
    found = recipes.get(name)
    schedule = found.schedule
    assert SOURCES[name] == (
        found.optimizer.lr,
        schedule.batch_size,
        schedule.epochs,
        schedule.warmup_epochs,
        schedule.cooldown_epochs,
        schedule.warmup_lr,
        schedule.min_lr,
        found.optimizer.weight_decay,
        found.ema.decay,
        found.augment.crop_pct,
    )


def test_transfer_as_released_mixes_tokens_and_trains_the_class_alone() -> None:
    found = recipes.get("lvvit_s_transfer_released")
    assert (found.supervision.kind, found.mixing.kind) == ("labels", "mixtoken")


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_builds_its_student(name: str) -> None:
    recipe = recipes.get(name)
    recipe = replace(recipe, model=replace(recipe.model, weights=None))
    with torch.device("meta"):
        student = create_student(recipe, num_classes=1000)
    rows, cols = student.grid(recipe.model.image_size)
    if student.heads == "class":
        assert (rows, cols) == (1, 1)
        return
    assert (rows, cols) == SMALL_GRIDS.get(name, (rows, cols))
    assert min(rows, cols) >= (4 if name in SMALL_GRIDS else 7)


@pytest.mark.parametrize("name", [*ONE_OF_A_KIND, *map(slow, OTHERS)])
def test_the_smoke_variant_trains(name: str, data: Data, tmp_path: Path) -> None:
    recipe = replace(recipes.smoke(name), data=data)
    results = train(recipe, tmp_path / "run").results
    assert results["updates"] == 2
    assert results["skipped"] == 0


def test_an_unknown_recipe_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'lvvit_s_224'"):
        recipes.get("lvvit_s_22")


@pytest.mark.parametrize("name", recipes.names())
def test_no_recipe_fixes_the_arithmetic(name: str) -> None:
    """What is quick on one machine is slow on another."""
    assert recipes.get(name).engine.precision == "auto"
