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
    """Export a trained model to ONNX, to torch.export, or as a timm folder.

    ONNX (.onnx) and torch.export (.pt2) programs take a batch of normalized images and return `logits`
    (class token), `tokens` (logits for each patch token) and `fused` (the published prediction). If the
    patch tokens did not learn the classes, they return `logits` only. Those of a student without classes
    return `features` (mean of the patch tokens, for search or a classifier of your own) and `tokens`
    (logits of the visual words). Their metadata holds input size and normalization. Each program is
    compared with the model before it is kept. A timm folder contains a model card and loads with
    timm.create_model("local-dir:FOLDER", pretrained=True), without tokenlabel unless the model is an
    LV-ViT.

    Args:
        output: File ending in .onnx or .pt2, or a folder to create.
        checkpoint: A run folder, or a weights file together with --model.
        model: timm model name; without a checkpoint, its pretrained weights are used.
        form: Format (default: from the ending of the output).
        weights: Which weights of a run: the moving average (ema) or the trained weights (model).
        image_size: Input size in pixels (default: the checkpoint's).
        dynamic_size: Let the program accept images of any size, if the model can.
        overwrite: Overwrite an existing program.
        dtype: Data type of the weights in a timm folder; bfloat16 halves its size.
    """
    import torch

    from tokenlabel.errors import InputError
    from tokenlabel.evaluation.load import load_classifier
    from tokenlabel.export.card import in_python, model_card
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
        print(f"next, in Python: {in_python(classifier, f'local-dir:{output}')}")
        return
    write = export_onnx if form == "onnx" else export_torch
    difference = write(classifier, output, dynamic_size=dynamic_size)
    print(f"{output}: outputs differ from the model's by at most {difference:.1e}")
    load = "onnxruntime.InferenceSession" if form == "onnx" else "torch.export.load"
    print(f"next, in Python: {load}({str(output)!r})")
