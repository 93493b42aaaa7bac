"""Recipes hold the published values, are data, and run in their smoke variants."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tokenlabel.api import segment
from tokenlabel.recipes.segmentation import get_segmentation_recipe, segmentation_recipe_names
from tokenlabel.runs.recipe_file import from_mapping, to_mapping
from tokenlabel.segmentation.trained import create_segmenter


@pytest.mark.parametrize(
    ("name", "backbone", "channels", "drop_path"),
    [
        ("lvvit_s_upernet_ade20k", "lvvit_s", 256, 0.1),
        ("lvvit_m_upernet_ade20k", "lvvit_m", 256, 0.2),
        ("lvvit_l_upernet_ade20k", "lvvit_l", 512, 0.5),
    ],
)
def test_recipes_hold_the_published_values(
    name: str, backbone: str, channels: int, drop_path: float
) -> None:
    recipe = get_segmentation_recipe(name)
    model, schedule, test = recipe.model, recipe.schedule, recipe.test
    assert (model.backbone, model.channels, model.drop_path) == (backbone, channels, drop_path)
    assert (model.head, model.dropout, recipe.loss.auxiliary_weight) == ("upernet", 0.1, 0.4)
    assert (recipe.optimizer.name, recipe.optimizer.lr) == ("adamw", 6e-5)
    assert (recipe.optimizer.weight_decay, recipe.optimizer.decay_all) == (0.01, True)
    assert model.kwargs["norm_eps"] == 1e-6
    assert model.kwargs.get("residual_divisor") == (1.0 if backbone == "lvvit_l" else None)
    assert (schedule.updates, schedule.batch_size, schedule.warmup_updates) == (160_000, 16, 1500)
    assert (schedule.decay, schedule.min_lr) == ("poly", 0.0)
    assert schedule.warmup_lr == pytest.approx(6e-5 * 1e-6)
    assert (recipe.augment.crop, recipe.augment.scale) == ((512, 512), (0.5, 2.0))
    assert (recipe.augment.largest_share, recipe.augment.hflip) == (0.75, 0.5)
    assert (test.short_side, test.window, test.stride) == (512, 512, 341)
    assert recipe.engine.sync_batchnorm


def test_learning_rate_follows_the_published_course() -> None:
    from tokenlabel.training.optimize import create_optimizer, create_schedule

    recipe = get_segmentation_recipe("lvvit_s_upernet_ade20k")
    optimizer = create_optimizer(nn.Linear(2, 2), recipe.optimizer)
    schedule = create_schedule(optimizer, recipe, updates_per_epoch=1263)

    def rate(update: int) -> float:
        schedule.step_update(update)
        return float(optimizer.param_groups[0]["lr"])

    assert rate(0) == pytest.approx(6e-11)
    assert rate(750) == pytest.approx(3e-5, rel=1e-3)
    for update in (1500, 80_000, 159_999):
        assert rate(update) == pytest.approx(6e-5 * (1 - update / 160_000), rel=1e-3)


@pytest.mark.parametrize("name", segmentation_recipe_names())
def test_every_recipe_is_data_and_has_a_smoke_variant(name: str) -> None:
    recipe = get_segmentation_recipe(name)
    assert from_mapping(to_mapping(recipe), "recipe", type(recipe)) == recipe
    smoke = get_segmentation_recipe(f"{name}_smoke")
    model = create_segmenter(smoke, 3).eval()
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64)


def test_a_published_recipe_trains_in_its_smoke_variant(scenes: Path, tmp_path: Path) -> None:
    result = segment.train(
        data=scenes, output=tmp_path / "run", recipe="lvvit_s_upernet_ade20k_smoke"
    )
    assert result.results["updates"] == 4
