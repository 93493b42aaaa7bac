"""`tokenlabel teach`: make an annotator of your own images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tokenlabel.cli.timm_arguments import TimmArguments, timm_arguments

__all__ = ["teach"]


def teach(
    *,
    data: str,
    output: Path,
    model: str = "resnet50",
    split: str | None = None,
    pretrained: bool = True,
    model_kwargs: TimmArguments | None = None,
    image_size: int | None = None,
    epochs: int = 20,
    batch_size: int = 64,
    opt: str = "adamw",
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    min_scale: float = 0.35,
    hflip: bool = True,
    holdout: float = 0.1,
    seed: int = 0,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    workers: int = 0,
) -> None:
    """Fine-tune a classifier on your own folder, to annotate it.

    For classes that no pretrained model knows. The result is a folder that `tokenlabel annotate
    --model FOLDER` takes; class names and input size travel with it.

    Args:
        data: images: a folder of class folders, a tar, WebDataset shards, hfds/owner/name.
        output: folder of the taught model.
        model: a timm classifier; convolutional ones make the best annotators.
        split: part of the data set, where it has parts; the training part by default.
        pretrained: start from the model's pretrained weights.
        model_kwargs: further arguments of the timm model, as name value pairs; lists as [64,128].
        image_size: side of the input in pixels; the model's own by default.
        epochs: passes over the images.
        batch_size: images a step.
        opt: an optimiser of timm; from random weights muon needs far fewer epochs than adamw.
        lr: peak learning rate; muon takes about twice that of adamw.
        weight_decay: of the optimiser.
        min_scale: random crops cover at least this share of the image.
        hflip: mirror images at random; switch off where left and right differ (digits, text).
        holdout: share of the images that is kept back to tell the accuracy.
        seed: of all random choices.
        device: cpu, cuda, mps, ...; auto takes the accelerator if there is one.
        dtype: arithmetic of the network; auto is bfloat16 on CUDA, float32 elsewhere.
        workers: processes that read images; 0 reads in this one.
    """
    from tokenlabel.annotators.device import resolve_device
    from tokenlabel.annotators.teach import teach as run
    from tokenlabel.data.open import announce, open_images
    from tokenlabel.data.source import require_labels
    from tokenlabel.progress import console

    place, number_format = resolve_device(device, dtype)
    source = require_labels(open_images(data, split, "train"), data)
    announce(source, data)
    taught = run(
        source,
        output,
        model=model,
        pretrained=pretrained,
        model_kwargs=timm_arguments(model_kwargs),
        image_size=image_size,
        epochs=epochs,
        batch_size=batch_size,
        opt=opt,
        lr=lr,
        weight_decay=weight_decay,
        min_scale=min_scale,
        hflip=hflip,
        holdout=holdout,
        seed=seed,
        device=place,
        dtype=number_format,
        workers=workers,
    )
    if taught.accuracy is not None:
        console.print(f"top-1 {taught.accuracy:.1%} of {taught.held_out} images not trained on")
    console.print(f"next: tokenlabel annotate --data {data} --model {output} --output LABELS")
