"""Any timm classifier as annotator."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

from tokenlabel.annotators.cells import CellScores
from tokenlabel.annotators.class_map import match_classes
from tokenlabel.annotators.image_model import ONE_VIEW, ImageAnnotator, Running
from tokenlabel.data.inputs import Fit, Preprocessing
from tokenlabel.errors import InputError
from tokenlabel.models import build_model
from tokenlabel.progress import console

__all__ = ["TimmAnnotator", "weights_hash"]


class TimmAnnotator(ImageAnnotator):
    """Scores every cell of a timm classifier with the classifier's own head.

    `model` is a timm name, `hf-hub:owner/name`, a folder that timm wrote (weights and
    `config.json`), or a model itself. The data set's classes are found among the model's by name,
    or through `class_table`; see `match_classes`.
    """

    def __init__(
        self,
        model: str | nn.Module,
        *,
        pretrained: bool = True,
        checkpoint: Path | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        image_size: int | None = None,
        fit: Fit = "squash",
        class_names: Sequence[str] | None = None,
        class_table: Path | None = None,
        **running: Unpack[Running],
    ) -> None:
        network: Any = model
        if isinstance(model, str):
            network = build_model(
                model,
                pretrained=pretrained and checkpoint is None,
                checkpoint=checkpoint,
                **(model_kwargs or {}),
            )
        settings = Preprocessing.of_timm(network, use_test_size=False).fitted(fit)
        size = (image_size, image_size) if image_size else settings.image_size
        views = running.get("views", ONE_VIEW)
        if hasattr(network, "set_input_size"):
            network.set_input_size(img_size=(views.window,) * 2 if views.window else size)
        if _has_one_size(network) and (fit == "keep" or set(views.scales) != {1.0}):
            raise InputError(
                "this model takes images of one size: use fit squash or crop and scale 1, or"
                " --model-kwargs dynamic_img_size True where the model has it"
            )
        scores = CellScores(network)
        if not scores.head_reads_patches:
            console.print(
                "note: this model's head was trained on a class token and never saw a patch token;"
                " its scores of single cells may mean little. Check them with"
                " `tokenlabel labels health`."
            )
        class_map = None
        if class_names is not None:
            known = _known_names(network)
            class_map = match_classes(known, network.num_classes, class_names, class_table)
        super().__init__(
            scores,
            network.num_classes,
            dataclasses.replace(settings, image_size=size, multiple=_multiple(network)),
            class_map=class_map,
            origin={
                "kind": "timm classifier",
                "model": _pretrained_cfg(network).get("architecture") or type(network).__name__,
                "weights_sha256": weights_hash(network),
            },
            **running,
        )


def weights_hash(model: nn.Module) -> str:
    """sha256 (hex) of names and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _known_names(model: Any) -> list[str] | None:
    """The names of the model's classes: as its weights say, or ImageNet's synsets, or unknown."""
    names = _pretrained_cfg(model).get("label_names")
    if names:
        return list(names)
    subset = infer_imagenet_subset(model)
    if subset is None:
        return None
    return list(ImageNetInfo(subset).label_names())


def _has_one_size(model: Any) -> bool:
    fixed = _pretrained_cfg(model).get("fixed_input_size", False)
    return bool(fixed) and not getattr(model, "dynamic_img_size", False)


def _pretrained_cfg(model: Any) -> dict[str, Any]:
    return getattr(model, "pretrained_cfg", None) or {}


def _multiple(model: Any) -> int:
    """The pixels of a cell's side: inputs should be a multiple of it."""
    info = getattr(model, "feature_info", None)
    reductions = [f["reduction"] for f in info] if info else [32]
    return int(max(reductions))
