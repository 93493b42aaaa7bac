"""What a student's labels decide: its token heads, their targets, and what goes together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore, TargetKind
from tokenlabel.progress import console
from tokenlabel.runs.recipe import Recipe

__all__ = ["fitted", "of_one", "of_several_classes", "of_words", "target_kind"]


def fitted(recipe: Recipe, stores: list[LabelStore]) -> Recipe:
    """The recipe with what the labels decide, which is said where it matters.

    `stores` are put into the order of the student's token heads: classes come first. The recipe names
    them, and their weights, in that order.
    """
    supervision: Any = recipe.supervision
    asked = recipe.model.token_classes
    words = [store for store in stores if store.manifest.words]
    if not supervision.teaches_tokens and (words or len(stores) > 1):
        what = f"{words[0].location} holds visual words" if words else "there are several stores"
        raise InputError(
            f"supervision {supervision.kind!r} needs one store of classes, and {what}: use"
            " supervision.kind=token-labels"
        )
    for one, other in combinations(stores, 2):
        if one.manifest.shards == other.manifest.shards:
            raise InputError(
                f"{one.location} and {other.location} hold the same labels: name each store once"
            )
    weights = getattr(supervision, "label_weights", ())
    if weights and len(weights) != len(stores):
        raise InputError(
            f"supervision.label_weights has {len(weights)} values for {len(stores)} label stores"
        )
    order = sorted(range(len(stores)), key=lambda i: stores[i].manifest.words)
    stores[:] = [stores[i] for i in order]
    data = recipe.data
    if len(stores) > 1:
        data = dataclasses.replace(data, labels=tuple(data.stores[i] for i in order))
    if weights:
        supervision = dataclasses.replace(
            supervision, label_weights=tuple(weights[i] for i in order)
        )
    recipe = dataclasses.replace(recipe, data=data, supervision=supervision)
    if stores[0].manifest.words or recipe.model.num_classes == 0:
        recipe = of_words(recipe, None)
        supervision = recipe.supervision
    # how targets are made is asked of classes; those of words are always probabilities
    for store in [store for store in stores if not store.manifest.words] or stores:
        first = next(iter(store.keys()), None)
        if first is not None:
            supervision = supervision.fitted(store[first])
            if remark := supervision.remark(store[first]):
                console.print(remark, soft_wrap=True)
    token_classes = _token_classes(recipe, stores)
    if asked not in (None, token_classes):
        raise InputError(
            f"model.token_classes is {asked}, but these labels make it {token_classes}: leave it out of"
            " the recipe, or set it to null"
        )
    model = dataclasses.replace(recipe.model, token_classes=token_classes)
    return dataclasses.replace(recipe, supervision=supervision, model=model)


def target_kind(recipe: Recipe, store: LabelStore) -> TargetKind:
    """How targets are made from one of the stores of a fitted recipe."""
    supervision: Any = recipe.supervision
    return "probability" if store.manifest.words else supervision.target_kind


def of_words(recipe: Recipe, count: int | None) -> Recipe:
    """The recipe where tokens name no classes but so many words: the class token learns the truth."""
    supervision: Any = recipe.supervision
    if not supervision.teaches_tokens:
        raise InputError(
            f"supervision {supervision.kind!r} needs an annotator of classes, not of visual words: use"
            " supervision.kind=token-labels"
        )
    if recipe.model.num_classes and supervision.class_target != "ground-truth":
        console.print("the labels are visual words: the class token learns the ground truth")
    return dataclasses.replace(
        recipe,
        supervision=dataclasses.replace(supervision, class_target="ground-truth"),
        model=dataclasses.replace(recipe.model, token_classes=count),
    )


def of_several_classes(recipe: Recipe) -> Recipe:
    """The recipe where images may have several classes: the class head learns these alone.

    Raises InputError for what goes with one class only.
    """
    supervision: Any = recipe.supervision
    if supervision.class_weights != "none":
        raise InputError("supervision.class_weights is of images with one class: leave it out")
    if getattr(supervision, "class_target", None) == "blend":
        console.print("images may have several classes: the class token learns the ground truth")
        supervision = dataclasses.replace(supervision, class_target="ground-truth")
    if supervision.blends_classes:
        raise InputError(
            "where images may have several classes, the class head learns these alone: use"
            " supervision.kind=token-labels with class_target=ground-truth, or kind=labels"
        )
    return dataclasses.replace(recipe, supervision=supervision)


def _token_classes(
    recipe: Recipe, stores: Sequence[LabelStore]
) -> int | tuple[int | None, ...] | None:
    """What the student's tokens name (see `DenseModel`)."""
    if not recipe.supervision.teaches_tokens:
        return None
    unlike = [store.manifest.words or recipe.model.num_classes == 0 for store in stores]
    of_each = tuple(s.num_classes if u else None for s, u in zip(stores, unlike, strict=True))
    return of_each[0] if len(of_each) == 1 else of_each


def of_one(facts: dict[str, list[str]]) -> dict[str, Any]:
    """The facts of several stores; of a single one without lists, as before there were several."""
    return {name: values[0] if len(values) == 1 else values for name, values in facts.items()}
