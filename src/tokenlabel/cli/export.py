"""`tokenlabel export`: a trained model as ONNX, as a torch program, or as a timm folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

__all__ = ["export"]

_SUFFIX = {"onnx": ".onnx", "torch": ".pt2", "timm": ""}


def export(
    *,
    output: Path,
    checkpoint: Path | None = None,
    model: str | None = None,
    form: Literal["onnx", "torch", "timm"] | None = None,
    weights: Literal["auto", "ema", "model"] = "auto",
    image_size: int | None = None,
    dynamic_size: bool = False,
    dtype: Literal["float32", "bfloat16"] = "float32",
    overwrite: bool = False,
) -> None:
    """Write a trained model as ONNX, as a torch program, or as a timm folder.

    ONNX (.onnx) and torch (.pt2) programs take any number of normalized images and give `logits`
    (class token), `tokens` (one row of logits a token) and `fused` (the published prediction); what
    size and normalization they want is written inside. Both are compared with the model before they
    are kept. A timm folder holds a model card, and loads without tokenlabel, unless the model is an
    LV-ViT: timm.create_model("local-dir:FOLDER", pretrained=True).

    Args:
        output: File ending in .onnx or .pt2, or the folder to create.
        checkpoint: A run's folder, or a file of weights together with --model.
        model: timm name of the model; alone, with its own pretrained weights.
        form: What to write; left out, the output's ending says it.
        weights: Of a run: the moving average (ema) or the weights themselves (model).
        image_size: Side of the input in pixels (default: the checkpoint's).
        dynamic_size: Let the program take images of any size, where the model can.
        overwrite: Replace a program that exists already.
        dtype: In which a timm folder stores the weights; bfloat16 takes half the space.
    """
    import torch

    from tokenlabel.errors import InputError
    from tokenlabel.evaluation.classifier import load_classifier
    from tokenlabel.export.card import model_card
    from tokenlabel.export.programs import export_onnx, export_torch
    from tokenlabel.export.timm_folder import export_timm
    from tokenlabel.files import claim_file

    if form is None:
        form = {".onnx": "onnx", ".pt2": "torch"}.get(output.suffix, "timm")  # type: ignore
    assert form is not None
    if output.suffix != _SUFFIX[form] and form != "timm":
        raise InputError(f"{output}: a {form} file ends in {_SUFFIX[form]}")
    if dynamic_size and form == "timm":
        raise InputError("--dynamic-size is for programs: name a .onnx or .pt2 file")
    if dtype != "float32" and form != "timm":
        raise InputError("--dtype is for timm folders: programs keep float32")
    if form != "timm":
        claim_file(output, overwrite=overwrite)
    classifier = load_classifier(checkpoint, model, weights=weights, image_size=image_size)
    if form == "timm":
        export_timm(classifier, output, model_card(classifier, output.name), getattr(torch, dtype))
        print(f"{output}: a timm folder")
        print(f"next, in Python: timm.create_model({f'local-dir:{output}'!r}, pretrained=True)")
        return
    write = export_onnx if form == "onnx" else export_torch
    difference = write(classifier, output, dynamic_size=dynamic_size)
    print(f"{output}: outputs differ from the model's by at most {difference:.1e}")
    load = "onnxruntime.InferenceSession" if form == "onnx" else "torch.export.load"
    print(f"next, in Python: {load}({str(output)!r})")
