"""What a student learns from: one file a method.

A method is a strict dataclass of its options, and what follows from them: what it needs besides the
images, the targets of a batch, the loss, how its student predicts, what is recorded. To add one, write
its file and add it to the table below; recipes, the command line, training and evaluation follow.

Importing this package imports no torch, so that recipes can hold methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tokenlabel.errors import InputError
from tokenlabel.supervision.distillation import Distillation
from tokenlabel.supervision.labels import GroundTruth
from tokenlabel.supervision.method import (
    RULES,
    Method,
    Moment,
    Rule,
    Targets,
    better_rule,
    multi_hot,
)
from tokenlabel.supervision.method import Annotated as AnnotatedMethod
from tokenlabel.supervision.token_labels import TokenLabels

__all__ = [
    "METHODS",
    "RULES",
    "AnnotatedMethod",
    "AnyMethod",
    "Distillation",
    "GroundTruth",
    "Method",
    "Moment",
    "Rule",
    "Targets",
    "TokenLabels",
    "better_rule",
    "multi_hot",
    "of_kind",
    "section",
]

METHODS: dict[str, type[Method]] = {
    "labels": GroundTruth,
    "distillation": Distillation,
    "token-labels": TokenLabels,
}

if TYPE_CHECKING:
    AnyMethod = Method
else:
    AnyMethod = Annotated[reduce(or_, METHODS.values()), Field(discriminator="kind")]

_FIRST_VERSION = {
    "kind", "token_weight", "class_target", "distillation_share", "target", "smoothing",
    "class_weights", "token_fraction", "last_epochs_without_tokens", "online",
}  # fmt: skip
"""The first version wrote the options of all methods into one section."""

_FIRST_CHOICES = {"clean_view": False}
"""What it did where there is a choice now."""


def section(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A recipe's supervision section as its method reads it. Raises InputError.

    Without a kind it is token labels. A complete section of the first version is cut to the options
    of its kind; in any other, an option of another method is a mistake.
    """
    kind = content.get("kind", "token-labels")
    if not isinstance(kind, str) or kind not in METHODS:
        *names, last = map(repr, METHODS)
        raise InputError(
            f"{where}: supervision.kind = {kind!r}: should be {', '.join(names)} or {last}"
        )
    known = METHODS[kind].options()
    if content.keys() >= _FIRST_VERSION:
        kept = {k: v for k, v in content.items() if k in known or k not in _FIRST_VERSION}
        return {k: v for k, v in _FIRST_CHOICES.items() if k in known} | kept
    for key in content:
        owners = [name for name, method in METHODS.items() if key in method.options()]
        if owners and kind not in owners:
            raise InputError(
                f"{where}: supervision.{key} is an option of {' and '.join(owners)}, not of {kind}"
            )
    return {"kind": kind, **content}


def of_kind(content: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """A section changed to another kind: its options as far as the new method has them."""
    method = METHODS.get(kind) if isinstance(kind, str) else None
    known = () if method is None else method.options()
    return {key: value for key, value in content.items() if key in known} | {"kind": kind}
