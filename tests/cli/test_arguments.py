"""A verb and its function of the library name every argument alike, with the same default."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokenlabel.api import evaluate, labels, pack, segment, teach, train
from tokenlabel.api.segment.evaluation import How
from tokenlabel.cli import evaluate as cli_evaluate
from tokenlabel.cli import labels as cli_labels
from tokenlabel.cli import pack as cli_pack
from tokenlabel.cli import segment as cli_segment
from tokenlabel.cli import teach as cli_teach
from tokenlabel.cli import train as cli_train

PAIRS = {
    "eval": (cli_evaluate.evaluate, evaluate.evaluate, set(), set()),
    "pack": (cli_pack.pack, pack.pack, set(), set()),
    "teach": (cli_teach.teach, teach.teach, set(), {"callbacks"}),
    "train": (
        cli_train.train,
        train.train_recipe,
        {"annotator", "allow_changed", "show"},
        set(),
    ),
    "labels import": (cli_labels.import_labels, labels.import_labels, set(), set()),
    "segment predict": (cli_segment.predict, segment.predict, {"multi_scale"}, {"scales", "flip"}),
}


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    found = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    return {name: str(d) if isinstance(d, Path) else d for name, d in found.items()}


@pytest.mark.parametrize("verb", PAIRS)
def test_a_verb_and_the_library_name_arguments_alike(verb: str) -> None:
    command, function, only_here, only_there = PAIRS[verb]
    shown, taken = _defaults(command), _defaults(function)
    assert set(shown) - only_here == set(taken) - only_there
    chosen_by_others = {"scales", "flip"} if "multi_scale" in shown else set()
    for name in set(shown) & set(taken) - chosen_by_others:
        assert shown[name] == taken[name], name


def test_segment_eval_takes_all_that_says_how_images_are_shown() -> None:
    shown = set(inspect.signature(cli_segment.evaluate).parameters)
    taken = set(inspect.signature(segment.evaluate).parameters) - {"how"}
    assert shown - {"multi_scale"} == taken | set(How.__annotations__)


def test_segment_train_takes_the_choices_of_a_recipe() -> None:
    shown = set(inspect.signature(cli_segment.train).parameters)
    assert shown - {"output", "allow_changed", "show"} == set(segment.Choices.__annotations__)
