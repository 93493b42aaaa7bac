"""`tokenlabel convert`: a checkpoint of any layout becomes a folder that timm can load."""

from __future__ import annotations

from pathlib import Path

from tokenlabel.cli.said import say, say_next

__all__ = ["convert"]


def convert(*, checkpoint: Path, model: str, output: Path, img_size: int | None = None) -> None:
    """Convert a pickled or safetensors checkpoint to a timm folder (safetensors and config).

    Load it with `timm.create_model("local-dir:<output>", pretrained=True)`, or train from it with
    `--model local-dir:<output>`. No code in the checkpoint is executed.

    Args:
        checkpoint: File to read: released, trained here, or of any timm model.
        model: timm name of the model, such as lvvit_s.
        output: Folder to create.
        img_size: Side of the square input in pixels; position embeddings are resized (default: the
            size that the checkpoint was trained at).
    """
    from tokenlabel.evaluation.load import load_classifier
    from tokenlabel.export.timm_folder import export_timm

    export_timm(load_classifier(checkpoint, model, image_size=img_size), output)
    say(f"{output}: a timm folder")
    say_next("eval", ("--data", "DATA"), ("--checkpoint", output))
