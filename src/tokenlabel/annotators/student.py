"""A token-labelling student as annotator: labels that emerge from its own training.

Labels of a student's moving average helped where those of a stronger, foreign network hurt (Zhou et
al., "Fully Attentional Networks with Self-emerging Token Labeling", 2024, Table 9).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from torch import Tensor, nn

from tokenlabel.annotators.class_map import match_classes
from tokenlabel.annotators.image_model import ImageAnnotator, Running
from tokenlabel.annotators.timm_classifier import weights_hash
from tokenlabel.data.inputs import Fit
from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import load_classifier
from tokenlabel.models import DenseModel
from tokenlabel.runs.open import WhichWeights

__all__ = ["StudentAnnotator"]


class TokenScores(nn.Module):
    """Images [B, 3, H, W] to the token logits [B, h, w, C] of a student."""

    def __init__(self, student: DenseModel) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.student(images).tokens
        return tokens


class StudentAnnotator(ImageAnnotator):
    """Scores tokens with the token head of a trained student.

    `checkpoint` is a run's folder, one of its checkpoints, or a file of weights, whose timm `model`
    must then be named. Of a run the moving average is taken, if it kept one.
    """

    def __init__(
        self,
        checkpoint: Path,
        model: str | None = None,
        *,
        weights: WhichWeights = "auto",
        image_size: int | None = None,
        fit: Fit = "squash",
        class_names: Sequence[str] | None = None,
        class_table: Path | None = None,
        **running: Unpack[Running],
    ) -> None:
        found = load_classifier(checkpoint, model, weights=weights, image_size=image_size)
        if not found.has_tokens:
            raise InputError(
                f"{checkpoint} was trained without token labels: its token head says nothing."
                " Use it as a classifier, with --model"
            )
        size = found.preprocessing.image_size
        rows, _ = found.model.grid(size)
        class_map = None
        if class_names is not None:
            class_map = match_classes(
                found.class_names, found.num_classes, class_names, class_table
            )
        super().__init__(
            TokenScores(found.model),
            found.num_classes,
            dataclasses.replace(found.preprocessing.fitted(fit), multiple=size[0] // rows),
            class_map=class_map,
            origin={
                "kind": "student",
                "model": found.facts["model"],
                "weights_sha256": weights_hash(found.model),
            },
            **running,
        )
