"""`tokenlabel convert`: a checkpoint of any layout becomes a folder that timm can load."""

from __future__ import annotations

from pathlib import Path

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
    import tempfile

    from timm.models import save_for_hf

    from tokenlabel.errors import InputError
    from tokenlabel.models.checkpoints import build_from

    if output.exists():
        raise InputError(f"{output} exists already: name another folder")
    built = build_from(checkpoint, model, img_size)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as folder:
        save_for_hf(built, str(Path(folder) / "model"), safe_serialization=True)
        (Path(folder) / "model").rename(output)
