"""Which folders are the parts of a data set, and which part a verb reads."""

from __future__ import annotations

import pytest

from tokenlabel.data.splits import (
    NoSuchPartError,
    choose_part,
    file_part,
    parts_among,
    top_folders,
)
from tokenlabel.errors import InputError


@pytest.mark.parametrize(
    ("paths", "parts"),
    [
        (["train/cat/1.jpg", "val/cat/1.jpg"], ("train", "val")),
        (["train/cat/1.jpg"], ("train",)),
        (["Training/cat/1.jpg", "Validation/cat/2.jpg"], ("Training", "Validation")),
        # ImageNet as it is unpacked: validation images without class folders
        (["train/n01/1.jpg", "val/1.jpg"], ("train", "val")),
        (["train/cat/1.jpg", "val/cat/1.jpg", "extra/1.jpg"], ("extra", "train", "val")),
        (["train/cat/1.jpg", "holdout/cat/1.jpg"], ("holdout", "train")),
        # a class may be called train
        (["train/1.jpg", "car/1.jpg", "bus/1.jpg"], ()),
        (["train/1.jpg"], ()),
        (["train/steam/1.jpg", "car/sedan/1.jpg"], ()),
        (["cat/1.jpg", "dog/1.jpg", "stray.jpg"], ()),
        ([], ()),
    ],
)
def test_parts_are_folders_of_usual_names_that_hold_classes(
    paths: list[str], parts: tuple[str, ...]
) -> None:
    assert parts_among(top_folders(paths)) == parts


@pytest.mark.parametrize(
    ("parts", "split", "part", "chosen"),
    [
        (["train", "val"], None, "train", "train"),
        (["train", "val"], None, "val", "val"),
        (["training", "test", "validation"], None, "val", "validation"),
        (["train", "test"], None, "val", "test"),
        (["train", "val"], "val", "train", "val"),
        (["train", "validation"], "val", None, "validation"),
        (["day"], None, None, "day"),
        ([], None, "train", None),
    ],
)
def test_one_rule_chooses_the_part(
    parts: list[str], split: str | None, part: str, chosen: str | None
) -> None:
    assert choose_part(parts, split, part, "D") == chosen  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "split", "part", "said"),
    [
        (["train", "val"], None, None, "D holds the parts train, val: .* --split"),
        (["day", "night"], None, "train", "no training part in D: it holds day, night; .* --split"),
        (["train"], None, "val", "no validation part in D: it holds train; .* --split"),
        (
            ["train", "val"],
            "trian",
            None,
            r"no split 'trian' in D \(did you mean 'train'\?\): .* with --split",
        ),
        ([], "train", None, "no split 'train' in D: it holds no parts; leave --split out"),
    ],
)
def test_what_cannot_be_chosen_is_said_with_the_flag_and_the_parts(
    parts: list[str], split: str | None, part: str, said: str
) -> None:
    with pytest.raises(InputError, match=said) as refused:
        choose_part(parts, split, part, "D")  # type: ignore[arg-type]
    assert isinstance(refused.value, NoSuchPartError) == (split is not None or part is not None)


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("imagenet-validation-07.tar", "validation"),
        ("val.tar.gz", "val"),
        ("cat.tar", None),
        ("strain-3.tar", None),
        ("train-val.tar", None),
    ],
)
def test_a_part_can_stand_in_a_files_name(file: str, part: str | None) -> None:
    assert file_part(file) == part
