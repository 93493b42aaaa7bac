"""Recipes as files and on the command line: strict, complete, and clear about mistakes."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tokenlabel.errors import InputError
from tokenlabel.runs.recipe import Model, Optimizer, Recipe
from tokenlabel.runs.recipe_file import (
    differences,
    flat,
    override,
    read_recipe,
    scaled,
    to_yaml,
)


def test_every_value_survives_the_file(tmp_path: Path) -> None:
    recipe = Recipe(
        model=Model(image_size=(224, 320), kwargs={"depth": 3, "act": "gelu"}),
        optimizer=Optimizer(lr=1e-7, betas=(0.9, 0.95)),
    )
    (tmp_path / "r.yaml").write_text(to_yaml(recipe))
    assert read_recipe(tmp_path / "r.yaml") == recipe


def test_a_file_may_name_only_what_it_changes(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("optimizer: {lr: 1e-3}\nmodel: {image_size: [32, 64]}\n")
    assert read_recipe(tmp_path / "r.yaml") == Recipe(
        optimizer=Optimizer(lr=1e-3), model=Model(image_size=(32, 64))
    )
    (tmp_path / "r.yaml").write_text("")
    assert read_recipe(tmp_path / "r.yaml") == Recipe()


def test_every_value_can_be_overridden() -> None:
    """Each by its own value, and each but free text by a wrong one, which is refused."""
    for path, value in flat(Recipe()).items():
        assert override(Recipe(), [f"{path}={json.dumps(value)}"]) == Recipe()
        with pytest.raises(InputError, match=f"recipe: {re.escape(path)}"):
            override(Recipe(), [f"{path}={{wrong: [1]}}"])


def test_overriding() -> None:
    recipe = override(
        Recipe(),
        ["optimizer.lr=1e-3", "model.kwargs.depth=4", "optimizer.betas=[0.9, 0.95]", "seed=7"],
    )
    assert recipe.optimizer.lr == 1e-3
    assert recipe.optimizer.betas == (0.9, 0.95)
    assert recipe.model.kwargs == {"depth": 4}
    assert differences(Recipe(), recipe) == [
        "model.kwargs.depth", "optimizer.betas", "optimizer.lr", "seed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("optimizer.lrr=1", "unknown key 'lrr' in section 'optimizer' (did you mean 'lr'?)"),
        ("optimiser.lr=1", "no section 'optimiser' (did you mean 'optimizer'?)"),
        ("seeed=1", "unknown key 'seeed' (did you mean 'seed'?)"),
        ("augment.size=32", "unknown key 'size' in section 'augment': it has scale, ratio"),
        ("optimizer.lr=fast", "optimizer.lr = 'fast': it must be a valid number"),
        ("optimizer.lr=-1", "optimizer.lr = -1: it must be greater than 0"),
        ("optimizer.lr=.inf", "optimizer.lr"),
        ("schedule.epochs=1.5", "schedule.epochs = 1.5: it must be a valid integer"),
        ("schedule.epochs='3'", "schedule.epochs = '3': it must be a valid integer"),
        ("engine.compile=1", "engine.compile = 1: it must be a valid boolean"),
        ("supervision.kind=token", "'labels', 'distillation' or 'token-labels'"),
        ("schedule=3", "schedule = 3"),
        ("optimizer.lr", "write section.key=value"),
        ("model.name=[", "not a valid YAML"),
    ],
)
def test_mistakes_are_named(change: str, told: str) -> None:
    with pytest.raises(InputError) as mistake:
        override(Recipe(), [change])
    assert told in str(mistake.value)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize("content", ["- 1\n", "a: [\n", "optimizer: 3\n", "optimizr: {}\n"])
def test_a_wrong_file_is_named(content: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match=r"wrong\.yaml"):
        read_recipe(file)
    with pytest.raises(InputError, match=r"cannot read recipe .*absent"):
        read_recipe(tmp_path / "absent.yaml")


def test_the_rules_of_scale() -> None:
    recipe = dataclasses.replace(Recipe(), optimizer=Optimizer(lr=1.6e-3))
    for rule, factor in (("linear", 0.25), ("sqrt", 0.5), ("none", 1.0)):
        small = scaled(recipe, 256, rule)  # type: ignore[arg-type]
        assert small.schedule.batch_size == 256
        assert small.optimizer.lr == pytest.approx(1.6e-3 * factor)
        assert small.schedule.min_lr == pytest.approx(recipe.schedule.min_lr * factor)
        assert small.schedule.warmup_lr == pytest.approx(recipe.schedule.warmup_lr * factor)


def test_recipes_and_the_verb_need_no_torch() -> None:
    code = (
        "import sys, tokenlabel.cli.train, tokenlabel.recipes as r; r.get('lvvit_s_224');"
        "print({'torch', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
