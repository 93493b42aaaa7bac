"""Models as programs: ONNX and torch.export. Each is compared with the model it was made from."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import DECODE, RULE, Classifier
from tokenlabel.files import write_atomically
from tokenlabel.models import DenseModel
from tokenlabel.models.factory import with_any_size
from tokenlabel.output import fuse

__all__ = ["export_onnx", "export_torch"]

_TOLERANCE = 1e-4  # of logits and features


class Deployed(nn.Module):
    """Normalized images [B, C, H, W] to class logits, token logits [B, h, w, C], and both fused.

    Models whose tokens were not taught to name classes give class logits alone. Students without
    classes give `features` [B, D], the mean of the patch tokens before the token head, and `tokens`,
    logits [B, h, w, V] of what their tokens name: visual words, or the annotator's classes. Of several
    label stores it is what the first one names.
    """

    def __init__(self, classifier: Classifier, *, any_size: bool) -> None:
        super().__init__()
        self.model = _of_any_size(classifier.model) if any_size else classifier.model
        self.outputs: tuple[str, ...]
        if classifier.num_classes == 0:
            self.outputs = ("features", "tokens")
        else:
            self.outputs = ("logits", "tokens", "fused") if classifier.has_tokens else ("logits",)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.model.num_classes == 0:
            _, features = self.model.forward_tokens(images)
            return features.mean((1, 2)), self.model.token_head(features)
        output = self.model(images)
        if len(self.outputs) == 1:
            return (output.logits,)
        return output.logits, output.tokens, fuse(output)


def export_onnx(classifier: Classifier, file: Path, *, dynamic_size: bool = False) -> float:
    """Write an ONNX file that takes any number of images; returns its greatest difference.

    The input is `images` [B, C, H, W], normalized. The outputs are `logits` [B, C], `tokens`
    [B, h, w, C] and `fused` [B, C], or `logits` only where tokens were not taught to name classes. Those
    of a student without classes are `features` [B, D], the mean of its patch tokens, and `tokens`
    [B, h, w, V], the logits of its words.

    `dynamic_size` lets height and width vary too, for models that can. What the model needs of an
    image is written in the file's metadata, as JSON under "tokenlabel". Raises InputError where the
    model cannot be exported so, or the ONNX runtime does not agree with it within 1e-4.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InputError("ONNX files need: pip install tokenlabel[export]") from None
    deployed = Deployed(classifier, any_size=dynamic_size).eval()
    program = torch.onnx.export(
        _captured(deployed, classifier, dynamic_size),
        input_names=["images"],
        output_names=list(deployed.outputs),
        verbose=False,
    )
    assert program is not None
    written = program.model_proto
    entry = written.metadata_props.add()
    entry.key, entry.value = "tokenlabel", json.dumps(_needs(classifier))
    content = written.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> list[Tensor]:
        found = session.run(list(deployed.outputs), {"images": images.numpy()})
        return [torch.from_numpy(array) for array in found]

    return _compare_and_keep(deployed, run, classifier, dynamic_size, content, file)


def export_torch(classifier: Classifier, file: Path, *, dynamic_size: bool = False) -> float:
    """Write a program for `torch.export.load`; otherwise as `export_onnx`."""
    deployed = Deployed(classifier, any_size=dynamic_size).eval()
    program = _captured(deployed, classifier, dynamic_size)
    buffer = io.BytesIO()  # torch's own writer ends the process where a disk fills
    torch.export.save(
        program, buffer, extra_files={"tokenlabel.json": json.dumps(_needs(classifier))}
    )
    content = buffer.getvalue()
    loaded = torch.export.load(io.BytesIO(content)).module()
    return _compare_and_keep(deployed, loaded, classifier, dynamic_size, content, file)


def _of_any_size(model: DenseModel) -> DenseModel:
    """The same model built so that it resizes its positions by itself, where its family can."""
    flexible = with_any_size(model.backbone)
    if flexible is model.backbone:
        return model
    rebuilt = DenseModel(flexible, token_classes=model.token_classes, heads=model.heads)
    rebuilt.load_state_dict(model.state_dict())
    return rebuilt


def _captured(
    deployed: Deployed, classifier: Classifier, dynamic_size: bool
) -> torch.export.ExportedProgram:
    side = Dim.DYNAMIC if dynamic_size else Dim.STATIC
    shapes = {"images": {0: Dim("batch", min=1), 2: side, 3: side}}
    try:
        with torch.no_grad():
            return torch.export.export(
                deployed, (_images(classifier, 2),), dynamic_shapes=shapes, strict=False
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        advice = ": leave --dynamic-size out" if dynamic_size else ""
        raise InputError(
            f"{classifier.facts['model']} cannot be exported{advice} ({reason})"
        ) from error


def _compare_and_keep(
    deployed: Deployed,
    run: Any,
    classifier: Classifier,
    dynamic_size: bool,
    content: bytes,
    file: Path,
) -> float:
    """Give the file its name once it agrees with the model, on images it was not traced with."""
    height, width = classifier.preprocessing.image_size
    sizes = [(height, width), (height + 32, width + 64)] if dynamic_size else [(height, width)]
    worst = 0.0
    for batch, size in enumerate(sizes, start=3):
        images = _images(classifier, batch, size)
        with torch.no_grad():
            for mine, theirs in zip(deployed(images), run(images), strict=True):
                worst = max(worst, float((mine - theirs).abs().max()))
    if not worst <= _TOLERANCE:
        raise InputError(f"the exported model differs by {worst:.1e}: it was not kept")
    write_atomically(file, content)
    return worst


def _images(classifier: Classifier, batch: int, size: tuple[int, int] | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    shape = size or classifier.preprocessing.image_size
    return torch.randn(batch, classifier.preprocessing.channels, *shape, generator=generator)


def _needs(classifier: Classifier) -> dict[str, Any]:
    """What whoever runs the program must know."""
    settings, rules = classifier.preprocessing, classifier.decode_rules
    return {
        "model": classifier.facts["model"],
        "image_size": list(settings.image_size),
        "crop_pct": settings.crop_pct,
        "squash": settings.fit == "squash",
        "interpolation": settings.interpolation,
        "mean": list(settings.mean),
        "std": list(settings.std),
        "classes": list(classifier.class_names),
        **({RULE: classifier.rule} if len(classifier.rules) > 1 else {}),
        **({} if rules.usual else {DECODE: rules.as_dict()}),
    }
