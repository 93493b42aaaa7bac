"""`tokenlabel models`: which students there are and what they cost."""

from __future__ import annotations

__all__ = ["models"]


def models(
    *,
    pattern: str = "lvvit_*",
    num_classes: int = 1000,
    img_size: int | None = None,
    throughput: bool = False,
    batch_size: int = 16,
    device: str = "cpu",
) -> None:
    """List models with their token grid, parameters and FLOPs.

    Any timm image model can be a student. `tokenlabel models --pattern "*swin*"` lists models by name;
    without a pattern, the four sizes of LV-ViT are listed.

    Args:
        pattern: Shell-style pattern for model names.
        num_classes: Number of classes of both heads.
        img_size: Side of the square input in pixels (default: the model's own).
        throughput: Also measure inference throughput (a few seconds per model).
        batch_size: Batch size for the throughput.
        device: Device for the throughput, such as cpu or cuda.
    """
    import timm
    import torch
    from rich.table import Table

    from tokenlabel.errors import InputError
    from tokenlabel.models import create_model
    from tokenlabel.models.profile import measure_throughput, profile
    from tokenlabel.progress import results

    names = timm.list_models(pattern)
    if not names:
        raise InputError(f'no model is named like {pattern!r}: try a wider one, such as "*vit*"')
    columns = ["model", "image", "tokens", "parameters (M)", "GFLOPs an image"]
    table = Table(*columns, *(["images/s"] if throughput else []))
    for name in names:
        try:
            with torch.device(device if throughput else "meta"):
                model = create_model(name, num_classes, img_size=img_size)
            found = profile(model, img_size)
        except InputError as error:
            table.add_row(name, str(error))
            continue
        row = [
            name,
            "x".join(map(str, found.image_size)),
            "x".join(map(str, found.grid)),
            f"{found.parameters / 1e6:.1f}",
            f"{found.flops / 1e9:.1f}",
        ]
        if throughput:
            shape = (batch_size, model.image_shape[0], *found.image_size)
            images = torch.zeros(shape, device=device)
            row.append(f"{measure_throughput(model, images):.0f}")
        table.add_row(*row)
    results.print(table)
    results.print("Both heads are counted; a multiply-add counts as two operations.")
