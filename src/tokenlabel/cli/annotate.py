"""`tokenlabel annotate`: label every region of every image once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

__all__ = ["annotate"]

_UNREADABLE_EXIT_CODE = 3


def annotate(
    *,
    data: str,
    output: Path,
    model: str,
    split: str | None = None,
    checkpoint: Path | None = None,
    model_kwargs: dict[str, Any] | None = None,
    pretrained: bool = True,
    class_map: Path | None = None,
    keep_classes: bool = False,
    top_k: int = 5,
    image_size: int | None = None,
    fit: Literal["squash", "keep", "crop"] = "squash",
    flip: bool = False,
    scales: tuple[float, ...] = (1.0,),
    window: int | None = None,
    codec: Literal["compact", "exact", "raw"] = "compact",
    batch_size: int = 32,
    shard_size: int | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    compile: bool = False,
) -> int:
    """Label every region of every image once, with a pretrained classifier.

    Each image gets a map of cells (7 x 7 for a ResNet at 224 pixels, more at larger sizes), and
    each cell its best classes with their probabilities. Training then reads these maps; the
    classifier is not needed any more.

    An interrupted run is continued by the same command; several processes (torchrun, or machines
    that share the output folder) divide the work. Images that cannot be read are listed and left
    out, and the exit code is then 3.

    Args:
        data: images: a folder of class folders, a tar, WebDataset shards, hfds/owner/name.
        output: folder of the label store.
        model: a timm model name, hf-hub:owner/name, or a folder that `tokenlabel teach` wrote.
        split: part of the data set, such as train.
        checkpoint: weights of the model, instead of its pretrained ones.
        model_kwargs: further arguments of the timm model, as name value pairs.
        pretrained: load the model's pretrained weights.
        class_map: CSV of annotator class, data set class, where their names differ.
        keep_classes: label with the annotator's own classes instead of the data set's.
        top_k: classes kept in each cell.
        image_size: side of the annotator's input in pixels; its own by default. Larger gives finer
            maps.
        fit: squash the whole image to a square, keep its shape, or crop its centre square. Tokens
            outside the crop get no label.
        flip: average with the mirrored image.
        scales: average over the image at these multiples of the input size.
        window: slide a window of this many pixels over the input, for annotators of a fixed size.
        codec: compact (about 2 kB an image), exact (keeps raw logits as float16), raw (as exact,
            not compressed).
        batch_size: images at a time.
        shard_size: images in a file of the store.
        device: cpu, cuda, mps, ...; auto takes the accelerator if there is one.
        dtype: arithmetic of the network; auto is bfloat16 on CUDA, float32 elsewhere.
        compile: compile the network, which pays on large data sets.
    """
    from tokenlabel.annotators.device import resolve_device
    from tokenlabel.annotators.image_model import Views
    from tokenlabel.annotators.run import run
    from tokenlabel.annotators.timm_classifier import TimmAnnotator
    from tokenlabel.data.source import open_source
    from tokenlabel.progress import console

    source = open_source(data, split)
    place, number_format = resolve_device(device, dtype)
    annotator = TimmAnnotator(
        model,
        pretrained=pretrained,
        checkpoint=checkpoint,
        model_kwargs=model_kwargs,
        image_size=image_size,
        fit=fit,
        class_names=None if keep_classes else source.class_names,
        class_table=class_map,
        top_k=top_k,
        views=Views(flip=flip, scales=scales, window=window),
        device=place,
        dtype=number_format,
        compile=compile,
    )
    manifest = run(
        source, annotator, output, batch_size=batch_size, shard_size=shard_size, codec=codec
    )
    if manifest is None:
        console.print(f"{output}: this process is done; the others finish the store")
        return 0
    labelled = sum(shard.records for shard in manifest.shards)
    console.print(f"{output}: {labelled} images labelled")
    if not manifest.left_out:
        return 0
    for left in manifest.left_out[:20]:
        console.print(f"  left out {left.key}: {left.reason}")
    console.print(
        f"{len(manifest.left_out)} images could not be read; repair them and run the same command"
        " again, or train without them"
    )
    return _UNREADABLE_EXIT_CODE
