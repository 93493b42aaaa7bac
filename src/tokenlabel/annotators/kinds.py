"""The table of annotators, and the two functions by which all others use it. Torch-free."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from tokenlabel.annotators.spec import AnnotatorSpec
from tokenlabel.errors import InputError, nearest

if TYPE_CHECKING:
    import torch

    from tokenlabel.annotators.protocol import Annotator

__all__ = ["KINDS", "build_annotator", "read_spec", "spec_type"]

# kind -> (module:spec, one line for the overview of verbs)
KINDS: dict[str, tuple[str, str]] = {
    "classifier": (
        "tokenlabel.annotators.classifier:ClassifierSpec",
        "Label every region of every image once, with a pretrained classifier.",
    ),
    "text": (
        "tokenlabel.annotators.text:TextSpec",
        "The same with an image-text model (CLIP, SigLIP) and the class names.",
    ),
    "words": (
        "tokenlabel.annotators.words:WordsSpec",
        "The same with visual words of any vision model; needs no classes.",
    ),
    "masks": (
        "tokenlabel.annotators.masks:MasksSpec",
        "The same from segmentation masks, one PNG per image.",
    ),
    "segmenter": (
        "tokenlabel.segmentation.annotator:SegmenterSpec",
        "The same with a network trained by `tokenlabel segment train`.",
    ),
    "boxes": (
        "tokenlabel.annotators.boxes:BoxesSpec",
        "The same from the boxes of a COCO annotation file.",
    ),
}


def spec_type(kind: str) -> type[AnnotatorSpec]:
    """The dataclass of a kind's options. Raises InputError where there is no such kind."""
    if kind not in KINDS:
        raise InputError(
            f"no annotator of kind {kind!r}{nearest(kind, KINDS)}: choose {', '.join(KINDS)}"
        )
    module, _, name = KINDS[kind][0].partition(":")
    spec: type[AnnotatorSpec] = getattr(importlib.import_module(module), name)
    return spec


def read_spec(value: str | Mapping[str, Any] | AnnotatorSpec) -> AnnotatorSpec:
    """A spec of what a recipe or a command line holds: a classifier's name, or `kind` and options.

    Raises InputError for options that the kind does not have.
    """
    if isinstance(value, str):
        value = {"model": value}
    if not isinstance(value, Mapping):
        return value
    options = dict(value)
    spec = spec_type(options.pop("kind", "classifier"))
    try:
        # as JSON, where strictness lets a list stand for a tuple and text for a path
        found: AnnotatorSpec = TypeAdapter(spec).validate_json(json.dumps(options, default=str))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise InputError(f"annotator: {place}: {fault['msg']}") from None
    return found


def build_annotator(
    spec: str | Mapping[str, Any] | AnnotatorSpec,
    *,
    class_names: Sequence[str],
    device: torch.device | None = None,
) -> Annotator[Any]:
    """The annotator of a spec, for a data set with `class_names`.

    `device` replaces the spec's own. Raises InputError where something is missing or does not fit.
    """
    return read_spec(spec).build(class_names, device)
