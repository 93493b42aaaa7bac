"""The opponent of visual words: a student that learns its teacher's features by regression.

As in Locality Guidance (Li et al. 2022, arXiv 2207.10026): beside the class loss, linear projections
of the student's tokens at three depths follow the features of three stages of a convolutional network
that sees the same augmented view, at the size at which it makes labels. `train` is `tokenlabel train
--supervision labels` with that term.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.annotators.classifier import classifier_inputs
from tokenlabel.annotators.image_model import weights_hash
from tokenlabel.annotators.spec import Network
from tokenlabel.api.train import train_recipe
from tokenlabel.data.batch import Batch
from tokenlabel.models import build_model
from tokenlabel.runs.results import TrainResult
from tokenlabel.training.engine import fit
from tokenlabel.training.ranks import Ranks
from tokenlabel.training.student import StudentSpec
from tokenlabel.training.task import Step

DEPTHS = 3


def train(teacher: Path, shown: int, weight: float, *, output: Path, **choices: Any) -> TrainResult:
    """A student with feature regression from a timm folder's network, which sees views of `shown`
    pixels a side; a run that is there goes on."""
    recipe = train_recipe(output=output, supervision="labels", mix="none", **choices)
    spec = RegressionSpec(recipe, teacher, shown, weight)
    return fit(spec.recipe, spec, output)


class RegressionSpec(StudentSpec):
    def __init__(self, recipe: Any, teacher: Path, shown: int, weight: float) -> None:
        super().__init__(recipe)
        self.teacher = build_model(str(teacher), pretrained=True).eval().requires_grad_(False)
        self.shown, self.weight = shown, weight

    def build(self, ranks: Ranks) -> RegressionTask:
        task = super().build(ranks)
        return RegressionTask(task, self.teacher.to(ranks.device), self.shown, self.weight)

    def facts(self) -> dict[str, Any]:
        origin = {"weights_sha256": weights_hash(self.teacher), "image_size": self.shown}
        return {**super().facts(), "annotator": origin | {"feature_weight": self.weight}}

    def answers(self, run: Path) -> Image.Image | None:  # noqa: ARG002
        return None  # the run's weights hold projections, which no plain student has


class RegressionTask(nn.Module):
    """A task with the regression's term. The projections are trained and saved with the student."""

    def __init__(self, task: Any, teacher: nn.Module, shown: int, weight: float) -> None:
        super().__init__()
        self.task, self.student, self.weight = task, task.student, weight
        self.rules, self.num_classes, self.normalize = task.rules, task.num_classes, task.normalize
        self._teacher = [teacher]  # in a list: no part of what is trained
        self._inputs = classifier_inputs(teacher, Network(image_size=shown))
        blocks = self.student.backbone.blocks
        channels = [stage.shape[1] for stage in stages(teacher, shown)]
        width = self.student.backbone.embed_dim
        self.student.projections = nn.ModuleList(nn.Linear(width, c) for c in channels)
        self._seen: list[Tensor] = []
        for depth in range(DEPTHS):
            place = round(depth * (len(blocks) - 1) / (DEPTHS - 1))
            blocks[place].register_forward_hook(self._see)

    def forward(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        self._seen.clear()
        losses = self.task(batch, step)
        with torch.no_grad():
            seen = self._stages(batch.images)
        prefix = self.student.backbone.num_prefix_tokens
        terms = []
        for tokens, project, stage in zip(self._seen, self.student.projections, seen, strict=True):
            wanted = F.adaptive_avg_pool2d(stage, self.task.grid).flatten(2).mT
            wanted = F.layer_norm(wanted.float(), wanted.shape[-1:])  # stages of one scale
            terms.append(F.mse_loss(project(tokens[:, prefix:]).float(), wanted))
        losses["features"] = torch.stack(terms).mean()
        losses["loss"] = losses["loss"] + self.weight * losses["features"]
        return losses

    def _stages(self, images: Tensor) -> Sequence[Tensor]:
        return _maps(self._teacher[0], self._inputs.normalize(self._inputs.inputs(images)))

    def _see(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if self.training:
            self._seen.append(output)


@torch.no_grad()
def stages(teacher: nn.Module, side: int) -> Sequence[Tensor]:
    """The teacher's features [1, D, h, w] of an image of so many pixels a side, at each depth."""
    return _maps(teacher, torch.zeros(1, 3, side, side, device=next(teacher.parameters()).device))


def _maps(teacher: Any, images: Tensor) -> Sequence[Tensor]:
    found: Sequence[Tensor] = teacher.forward_intermediates(
        images, indices=DEPTHS, intermediates_only=True
    )
    return found
