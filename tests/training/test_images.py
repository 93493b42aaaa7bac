"""The images of a run: its training and validation parts, and that all ranks see the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tokenlabel.errors import InputError
from tokenlabel.runs.recipe import Data, Engine, Recipe, Schedule
from tokenlabel.supervision import GroundTruth
from tokenlabel.training.batches import update_batches
from tokenlabel.training.classifier import ClassifierSpec
from tokenlabel.training.images import training_images
from tokenlabel.training.ranks import Ranks
from tokenlabel.training.student import StudentSpec
from tokenlabel.training.teach_recipe import TeachData, TeachRecipe


def write_images(root: Path, *keys: str) -> str:
    for i, key in enumerate(keys):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(root / key)
    return str(root)


def test_validation_images_may_lack_a_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [
        "train/ant/1.png",
        "train/bee/1.png",
        "train/cat/1.png",
        "val/cat/2.png",
        "val/ant/2.png",
    ]
    place = write_images(tmp_path, *keys)
    source, held_out = training_images(Data(train=place, val=place))
    assert source.class_names == ("ant", "bee", "cat")
    assert held_out is not None
    assert held_out.class_names == source.class_names
    assert [held_out.class_names[label] for label in held_out.labels] == ["ant", "cat"]
    assert "no image of 1 classes of " in capsys.readouterr().err.replace("\n", " ")


def test_classes_that_are_not_trained_are_refused_with_both_parts_named(tmp_path: Path) -> None:
    place = write_images(tmp_path, "train/ant/1.png", "val/ant/2.png", "val/cow/2.png")
    with pytest.raises(InputError) as refused:
        training_images(Data(train=place, val=place))
    assert str(refused.value) == (
        f"1 of the 2 classes of {place} (part 'val') are not among the 1 of {place} (part 'train'):"
        " cow"
    )


def test_validation_images_need_classes_where_the_student_has_some(tmp_path: Path) -> None:
    place = write_images(tmp_path / "photos", "ant/1.png", "bee/1.png")
    flat = write_images(tmp_path / "flat", "1.png", "2.png")
    with pytest.raises(
        InputError, match=f"{flat} has no classes: .* folders of the classes of {place}"
    ):
        training_images(Data(train=place, val=flat))


def test_a_share_is_held_out_where_there_is_no_validation_part(tmp_path: Path) -> None:
    place = write_images(tmp_path, *[f"{name}/{i}.png" for name in "ab" for i in range(10)])
    source, held_out = training_images(Data(train=place, holdout=0.1))
    assert held_out is not None
    assert (len(source), len(held_out)) == (18, 2)
    assert not set(source.keys) & set(held_out.keys)
    assert training_images(Data(train=place))[1] is None
    again = training_images(Data(train=place, holdout=0.1))[1]
    assert again is not None
    assert again.keys == held_out.keys


def test_a_classifier_needs_two_classes(tmp_path: Path) -> None:
    """Of one class it is right about all images, and has learned nothing."""
    one = write_images(tmp_path / "one", "cat/1.png", "cat/2.png")
    flat = write_images(tmp_path / "flat", "1.png", "2.png")
    with pytest.raises(InputError, match="are all of one class, 'cat': give one folder for each"):
        ClassifierSpec(TeachRecipe(data=TeachData(train=one)))
    with pytest.raises(InputError, match="have no classes: give one folder for each"):
        ClassifierSpec(TeachRecipe(data=TeachData(train=flat)))
    recipe = Recipe(
        data=Data(train=one),
        supervision=GroundTruth(),
        schedule=Schedule(batch_size=2, epochs=1, warmup_epochs=0, cooldown_epochs=0),
    )
    with pytest.raises(InputError, match="are all of one class, 'cat'"):
        StudentSpec(recipe)


def test_classes_of_one_image_hold_out_none(tmp_path: Path) -> None:
    place = write_images(tmp_path, "ant/1.png", "bee/1.png", "cat/1.png")
    with pytest.raises(InputError, match=r"no class of .* has two images"):
        training_images(Data(train=place, holdout=0.1))
    assert training_images(Data(train=place, holdout=0.0))[1] is None


def test_images_that_fill_passes_but_no_update_are_refused() -> None:
    """As where a store left so many out that 90 are left, for updates of three passes of 32."""
    recipe = Recipe(schedule=Schedule(batch_size=96), engine=Engine(device="cpu", device_batch=32))

    def make(**_: Any) -> Any:
        return SimpleNamespace(order=SimpleNamespace(samples=range(90)))

    with pytest.raises(InputError, match="90 images do not fill one batch of 96"):
        update_batches(make, recipe=recipe, workers=0, ranks=Ranks(recipe.engine))
