"""`tokenlabel convert`: a checkpoint of any layout becomes a folder that timm can load."""

from __future__ import annotations

from pathlib import Path

from tokenlabel.cli.said import say, say_next

__all__ = ["convert"]


def convert(*, checkpoint: Path, model: str, output: Path, img_size: int | None = None) -> None:
    """Turn a pickled or safetensors checkpoint into safetensors with a timm config beside it.

    The folder loads with `timm.create_model("local-dir:<output>", pretrained=True)`, and as a
    student with `--model local-dir:<output>`. Nothing in the checkpoint is executed.

    Args:
        checkpoint: File to read: released, trained here, or any timm model's.
        model: timm name of the model that the weights belong to, such as lvvit_s.
        output: Folder to create.
        img_size: Side of the square input image in pixels: position embeddings are resized to it.
            If left out, the size that the checkpoint was trained at.
    """
    from tokenlabel.evaluation.classifier import load_classifier
    from tokenlabel.export.timm_folder import export_timm

    export_timm(load_classifier(checkpoint, model, image_size=img_size), output)
    say(f"{output}: a timm folder")
    say_next("eval", ("--data", "DATA"), ("--checkpoint", output))
