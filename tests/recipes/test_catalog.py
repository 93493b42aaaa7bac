"""Recipes are listed, shown and copied, whatever they train."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenlabel import recipes
from tokenlabel.cli.main import main
from tokenlabel.errors import InputError
from tokenlabel.recipes.segmentation import segmentation_recipe_names
from tokenlabel.runs.recipe_file import read_recipe
from tokenlabel.segmentation.recipe import SegmentationRecipe


def ran(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def test_all_recipes_are_listed_with_their_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert ran("recipes", "list") == 0
    students, networks = capsys.readouterr().out.split("tokenlabel segment train --recipe NAME")
    assert all(f"  {name} " in students for name in recipes.names())
    assert all(f"  {name} " in networks for name in segmentation_recipe_names())


def test_a_copy_holds_the_recipe_under_its_description(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    assert ran("recipes", "copy", "volo_d1_224", str(file)) == 0
    assert f"next: tokenlabel train --data DATA --recipe {file}" in capsys.readouterr().out
    assert read_recipe(file) == recipes.get("volo_d1_224")
    assert file.read_text().startswith("# VOLO-D1, whose authors trained with token labels")
    assert ran("recipes", "copy", "volo_d1_224", str(file)) == 2
    assert "exists already" in capsys.readouterr().err
    assert ran("recipes", "copy", "starter", str(file), "--overwrite") == 0
    assert read_recipe(file) == recipes.get("starter")
    recipes.copy("camvid_cpu", file, overwrite=True)
    assert read_recipe(file, SegmentationRecipe).name == "camvid_cpu"


def test_a_recipe_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert ran("recipes", "show", "starter") == 0
    assert capsys.readouterr().out == recipes.text("starter")


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'starter'"):
        recipes.text("startr")
    with pytest.raises(InputError, match=r"ends in \.yaml"):
        recipes.copy("starter", tmp_path / "recipe.txt")
