"""The usual annotator: a trained classifier, which scores every cell of an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import field
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic.dataclasses import dataclass

from tokenlabel.annotators.spec import File, Network, timm_network
from tokenlabel.choices import ModelArguments
from tokenlabel.errors import InputError
from tokenlabel.options import STRICT

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tokenlabel.annotators.folds import FoldsAnnotator
    from tokenlabel.annotators.image_model import ImageAnnotator
    from tokenlabel.data.inputs import Preprocessing
    from tokenlabel.evaluation.classifier import Classifier

__all__ = ["ClassifierSpec", "classifier_inputs"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClassifierSpec:
    """Label images with a classifier: a timm model, your own model, or a trained student."""

    kind: ClassVar[str] = "classifier"

    model: str
    """A timm classifier (a name, hf-hub:owner/name, or a folder written by `tokenlabel teach`),
    module:function, or the folder of a training run, whose student labels with its token head."""
    checkpoint: File | None = None
    """Weights file, instead of the pretrained weights."""
    class_map: File | None = None
    """CSV file with annotator class and data set class, if their names differ."""
    keep_classes: bool = False
    """Label with the annotator's own classes instead of the data set's."""
    head: Literal["auto", "class", "token"] = "auto"
    """Which head labels the cells: the class head, or the token head of a student. auto uses the token
    head if the run trained one."""
    pretrained: bool = True
    """Load pretrained weights."""
    model_kwargs: ModelArguments = field(default_factory=dict)
    """Further arguments of the timm model, as name value pairs; lists as [64,128]."""
    network: Network = field(default_factory=Network)

    def build(
        self, class_names: Sequence[str], device: torch.device | None = None
    ) -> ImageAnnotator | FoldsAnnotator:
        from tokenlabel.runs.folds import holds_folds

        if self.checkpoint is None and holds_folds(self.model):
            return self._folds(class_names, device)
        return self._one(class_names, device)

    def _folds(self, class_names: Sequence[str], device: torch.device | None) -> FoldsAnnotator:
        """Of a folder that `tokenlabel teach --folds` wrote."""
        from tokenlabel.annotators.folds import FoldsAnnotator
        from tokenlabel.runs.folds import open_folds

        folds = open_folds(self.model)
        each = [
            dataclasses.replace(self, model=str(folder))._one(class_names, device)
            for folder in folds.members
        ]
        return FoldsAnnotator(each, folds)

    def _one(self, class_names: Sequence[str], device: torch.device | None) -> ImageAnnotator:
        from tokenlabel.annotators.class_map import match_classes
        from tokenlabel.annotators.image_model import ImageAnnotator

        found = self._found()
        if not self.keep_classes and tuple(class_names) in ((), ("",)):
            options = f"--data DIR --output LABELS --model {quote(self.model)}"
            raise InputError(
                "these images have no classes. Label them with visual words: `tokenlabel annotate words"
                f" {options}`, or with the annotator's own classes: `tokenlabel annotate {options}"
                " --keep-classes`"
            )
        class_map = None
        if not self.keep_classes:
            class_map = match_classes(
                found.names, found.num_classes, class_names, self.class_map, found.descriptions
            )
        return ImageAnnotator(
            found.scores,
            found.num_classes,
            found.inputs,
            class_map=class_map,
            class_names=found.names if self.keep_classes else class_names,
            origin=found.origin,
            notes=found.notes,
            **self.network.running(device),
        )

    def _found(self) -> _Found:
        from tokenlabel.evaluation.load import load_classifier

        folder = Path(self.model)
        of_file = self.checkpoint is not None and self.head == "token"
        if of_file or (folder.is_dir() and self.checkpoint is None):
            load = partial(
                load_classifier, self.checkpoint or folder, self.model if of_file else None
            )
            student = load()
            student.require_classes()
            if self.head == "token" or (self.head == "auto" and student.has_tokens):
                return self._student(student, load)
            return self._classifier(student.model.backbone)
        if self.head == "token":
            raise InputError(
                "head token needs a student: give a training run's folder as model, or the weights"
                " of a student as checkpoint"
            )
        network, notes = timm_network(
            self.model, self.model_kwargs, pretrained=self.pretrained, checkpoint=self.checkpoint
        )
        return self._classifier(network, notes)

    def _student(self, student: Classifier, load: Callable[..., Classifier]) -> _Found:
        """A student with its token head. Of a run the moving average is taken, if it kept one."""
        from tokenlabel.annotators.cells import TokenScores
        from tokenlabel.annotators.image_model import weights_hash

        if not student.has_tokens:
            raise InputError(
                f"{student.facts['checkpoint']} was trained without token labels: its token head"
                " says nothing. Use its class head"
            )
        inputs = student.preprocessing.fitted(self.network.fit)
        multiple = inputs.image_size[0] // student.model.grid(inputs.image_size)[0]
        size = self.network.input_size(inputs.image_size, multiple)
        side = self.network.window
        if (shown := (side, side) if side else size) != inputs.image_size:
            student = load(image_size=shown)
        _require_any_size(student.model.backbone, self.network)
        return _Found(
            TokenScores(student.model),
            student.num_classes,
            dataclasses.replace(inputs, image_size=size, multiple=multiple),
            list(student.class_names),
            None,
            {
                "kind": "student",
                "model": student.facts["model"],
                "weights_sha256": weights_hash(student.model),
            },
        )

    def _classifier(self, network: Any, notes: tuple[str, ...] = ()) -> _Found:
        """A timm model that scores each cell with its own head."""
        from tokenlabel.annotators.cells import CellScores
        from tokenlabel.annotators.class_map import known_classes
        from tokenlabel.annotators.image_model import weights_hash

        inputs = fitted_inputs(network, self.network)
        scores = CellScores(network)
        note = (
            "this model's head was trained on a class token and never saw a patch token; its scores"
            " of single cells may mean little. Check them with `tokenlabel labels health`."
        )
        names, descriptions = known_classes(network)
        config = getattr(network, "pretrained_cfg", None) or {}
        return _Found(
            scores,
            network.num_classes,
            inputs,
            names,
            descriptions,
            {
                "kind": "timm classifier",
                "model": config.get("architecture") or type(network).__name__,
                "weights_sha256": weights_hash(network),
                **self._held_out(),
            },
            notes if scores.head_reads_patches else (*notes, note),
        )

    def _held_out(self) -> dict[str, Any]:
        """The accuracy on images that it was not taught on, of a model that `teach` wrote."""
        from tokenlabel.text import read_json

        config = Path(self.model, "config.json")
        known = read_json(config, kind=dict) if config.is_file() else {}
        return {"held_out": known["held_out"]} if "held_out" in known else {}


class _Found(NamedTuple):
    """A model that scores cells, and what is known of it."""

    scores: nn.Module
    num_classes: int
    inputs: Preprocessing
    names: Sequence[str] | None  # of its classes
    descriptions: Sequence[str] | None  # "goldfish, Carassius auratus"
    origin: dict[str, Any]
    notes: tuple[str, ...] = ()


def fitted_inputs(
    network: Any, options: Network, own: Preprocessing | None = None
) -> Preprocessing:
    """What a network is shown, which is made to take it. Raises InputError where it cannot."""
    inputs = classifier_inputs(network, options, own)
    side = options.window
    if hasattr(network, "set_input_size"):
        network.set_input_size(img_size=(side, side) if side else inputs.image_size)
    _require_any_size(network, options)
    return inputs


def classifier_inputs(
    network: nn.Module, options: Network, own: Preprocessing | None = None
) -> Preprocessing:
    """What a network is shown: at its test size, unless the options say otherwise.

    Its `own` preprocessing is the one that timm knows of it, if none is given.
    """
    from tokenlabel.data.inputs import Preprocessing

    inputs = (own or Preprocessing.of_timm(network)).fitted(options.fit)
    info: Any = getattr(network, "feature_info", None)
    multiple = int(max(f["reduction"] for f in info)) if info else 32
    size = options.input_size(inputs.image_size, multiple)
    return dataclasses.replace(inputs, image_size=size, multiple=multiple)


def _require_any_size(network: Any, options: Network) -> None:
    config = getattr(network, "pretrained_cfg", None) or {}
    one_size = config.get("fixed_input_size", False)
    if not one_size or getattr(network, "dynamic_img_size", False):
        return
    if options.fit == "keep" or set(options.scales) != {1.0}:
        raise InputError(
            "this model takes images of one size: use fit squash or crop and scale 1, or"
            " --model-kwargs dynamic_img_size True where the model has it"
        )
