"""Each method has its own options and no others; recipes of the first version stay readable."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenlabel.errors import InputError
from tokenlabel.geometry import Box, View
from tokenlabel.labels import LabelMap, token_targets
from tokenlabel.runs.recipe import Recipe
from tokenlabel.runs.recipe_file import from_mapping, override, read_recipe, to_mapping, to_yaml
from tokenlabel.supervision import METHODS, Distillation, GroundTruth, Moment, TokenLabels
from tokenlabel.supervision.token_labels import one_class

FIRST_VERSION: dict[str, Any] = {
    "kind": "labels",
    "token_weight": 0.7,
    "class_target": "blend",
    "distillation_share": 0.3,
    "target": "released",
    "smoothing": 0.2,
    "class_weights": "none",
    "token_fraction": 1.0,
    "last_epochs_without_tokens": 0,
    "online": False,
}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("labels", GroundTruth(smoothing=0.2)),
        (
            "distillation",
            Distillation(
                smoothing=0.2, distillation_share=0.3, target="released", clean_view=False
            ),
        ),
        (
            "token-labels",
            TokenLabels(
                smoothing=0.2,
                token_weight=0.7,
                class_target="blend",
                target="released",
                clean_view=False,
            ),
        ),
    ],
)
def test_a_recipe_of_the_first_version_is_read(kind: str, expected: object) -> None:
    recipe = from_mapping({"supervision": {**FIRST_VERSION, "kind": kind}})
    assert recipe.supervision == expected


def test_every_method_survives_its_file(tmp_path: Path) -> None:
    for method in METHODS.values():
        recipe = Recipe(supervision=method(smoothing=0.3))
        (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
        assert read_recipe(tmp_path / "recipe.yaml") == recipe
        assert tuple(to_mapping(recipe)["supervision"]) == method.options()
        assert method.options()[0] == "kind"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["supervision.token_weight=1", "supervision.kind=labels"],
            "supervision.token_weight is an option of token-labels, not of labels",
        ),
        (["supervision.online=true", "supervision.kind=labels"], "distillation and token-labels"),
        (["supervision.kind=tokens"], "should be 'labels', 'distillation' or 'token-labels'"),
        (["supervision.token_wait=1"], "unknown key 'token_wait' in section 'supervision'"),
        (["supervision.token_wait=1"], "(did you mean 'token_weight'?)"),
        (["supervision.token_weight=-1"], "supervision.token_weight = -1: it must be greater"),
        (["supervision.class_weights=even"], "supervision.class_weights = 'even'"),
    ],
)
def test_an_option_that_does_not_belong_is_named(changes: list[str], message: str) -> None:
    with pytest.raises(InputError) as mistake:
        override(Recipe(), changes)
    assert message in str(mistake.value)
    assert "\n" not in str(mistake.value)


def test_another_kind_keeps_what_both_have() -> None:
    base = Recipe(supervision=TokenLabels(smoothing=0.2, token_weight=2.0, target="released"))
    changes = ["supervision.distillation_share=0.7", "supervision.kind=distillation"]
    expected = Distillation(smoothing=0.2, target="released", distillation_share=0.7)
    assert override(base, changes).supervision == expected
    assert override(base, ["supervision.kind=labels"]).supervision == GroundTruth(smoothing=0.2)


def label_map(*scores: float, normalizer: float | None = None) -> LabelMap:
    logits = torch.tensor(scores)[:, None, None]
    ids = torch.arange(len(scores))[:, None, None]
    total = None if normalizer is None else torch.full((1, 1), normalizer)
    return LabelMap(logits, ids, total, Box(), 1000)


def test_labels_without_a_normalizer_get_the_targets_they_were_made_for() -> None:
    imported = label_map(4.0, 3.5, 3.0, 3.0, 2.5)
    chosen = TokenLabels().fitted(imported)
    assert chosen.target == "released"
    assert "keep no normalizer: released targets" in str(chosen.remark(imported))


def test_labels_with_a_normalizer_get_probabilities() -> None:
    known = label_map(4.0, 3.5, normalizer=6.0)
    chosen = TokenLabels().fitted(known)
    assert chosen.target == "probability"
    assert chosen.remark(known) is None


def test_probabilities_of_labels_without_a_normalizer_only_when_asked_and_with_a_warning() -> None:
    """The example of five logits: 0.90 of the mass here, 0.11 in the released code."""
    imported = label_map(4.0, 3.5, 3.0, 3.0, 2.5)
    chosen = TokenLabels(target="probability").fitted(imported)
    assert chosen.target == "probability"
    said = str(chosen.remark(imported))
    assert said.startswith("warning")
    assert "0.90" in said
    assert "0.11" in said


def test_released_targets_of_probabilities_are_refused() -> None:
    with pytest.raises(InputError, match="annotate with --codec exact"):
        TokenLabels(target="released").fitted(label_map(-0.5, -2.0, normalizer=0.0))


def test_what_each_method_needs() -> None:
    assert GroundTruth().needs == "nothing"
    assert TokenLabels().needs == Distillation().needs == "store"
    assert TokenLabels(online=True).needs == "annotator"


def test_drawn_classes_are_one_a_token_and_have_the_distribution_as_their_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [LabelMap.from_logits(torch.randn(8, 3, 3, generator=generator) * 2, 3, Box())] * 2
    target = token_targets(maps, [View.identity()] * 2, (2, 2), smoothing=0.1)
    mean, draws = torch.zeros(2, 5, 8), 1000
    for i in range(draws):
        drawn = one_class(target, torch.full((2, 5), (i + 0.5) / draws), 0.1).dense()
        torch.testing.assert_close(drawn.sum(-1), torch.ones(2, 5))
        mean += drawn / draws
    torch.testing.assert_close(mean, target.dense(), atol=2e-3, rtol=0)
    some = one_class(target, torch.zeros(2, 5), 0.1).dense()
    torch.testing.assert_close(some.max(-1).values, torch.full((2, 5), 0.9 + 0.1 / 8))


def test_drawn_classes_are_drawn_anew_at_each_step_and_leave_the_class_target() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [LabelMap.from_logits(torch.randn(8, 3, 3, generator=generator), 3, Box())] * 2
    target = token_targets(maps, [View.identity()] * 2, (2, 2))
    method, labels = TokenLabels(token_classes="drawn", class_target="annotator"), torch.arange(2)
    made = [
        method.targets(
            labels, target, 8, Moment(0, 1, partial(torch.Generator().manual_seed, step))
        )
        for step in (1, 2)
    ]
    tokens = [m.token_target.dense() for m in made if m.token_target is not None]
    assert not torch.equal(tokens[0], tokens[1])
    assert torch.equal(made[0].class_target, target.class_target())
