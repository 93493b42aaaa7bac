"""`tokenlabel annotate`: label every region of every image once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tokenlabel.cli.timm_arguments import TimmArguments, timm_arguments
from tokenlabel.errors import InputError

if TYPE_CHECKING:
    from tokenlabel.annotators.protocol import Annotator
    from tokenlabel.labels.manifest import Manifest

__all__ = ["annotate"]

_UNREADABLE_EXIT_CODE = 3
_SHOWN = 20


def annotate(
    *,
    data: str,
    output: Path,
    model: str | None = None,
    student: Path | None = None,
    image_text: str | None = None,
    masks: Path | None = None,
    boxes: Path | None = None,
    split: str | None = None,
    checkpoint: Path | None = None,
    model_kwargs: TimmArguments | None = None,
    pretrained: bool = True,
    text_weights: str | None = None,
    prompts: tuple[str, ...] = ("a photo of a {}.", "a part of a {}."),
    class_map: Path | None = None,
    keep_classes: bool = False,
    top_k: int = 5,
    image_size: int | None = None,
    fit: Literal["squash", "keep", "crop"] = "squash",
    flip: bool = False,
    scales: tuple[float, ...] = (1.0,),
    window: int | None = None,
    grid: tuple[int, int] = (32, 32),
    first_mask_value: int = 0,
    ignored_mask_values: tuple[int, ...] = (255,),
    codec: Literal["compact", "exact", "raw"] = "compact",
    batch_size: int | None = None,
    shard_size: int | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    compile: bool = False,
) -> int:
    """Label every region of every image once.

    Each image gets a map of cells (7 x 7 for a ResNet at 224 pixels, more at larger sizes), and
    each cell its best classes with their probabilities. Training then reads these maps; the
    annotator is not needed any more. The usual annotator is a pretrained classifier (--model);
    choose another with --student, --image-text, --masks or --boxes.

    An interrupted run is continued by the same command; several processes (torchrun, or machines
    that share the output folder) divide the work. Images that cannot be read are listed and left
    out, and the exit code is then 3.

    Args:
        data: images: a folder of class folders, a tar, WebDataset shards, hfds/owner/name.
        output: folder of the label store.
        model: a timm classifier: its name, hf-hub:owner/name, a folder that `tokenlabel teach`
            wrote, or module:function.
        student: a training run, whose student labels with its own token head. With --model, a file
            of weights of that timm model.
        image_text: an open_clip vision transformer, such as ViT-B-16: labels from the names of the
            classes alone.
        masks: a folder of segmentation masks, one PNG an image.
        boxes: a COCO annotation file.
        split: part of the data set, where it has parts; the training part by default.
        checkpoint: weights of the classifier, instead of its pretrained ones.
        model_kwargs: further arguments of the timm model, as name value pairs; lists as [64,128].
        pretrained: load the classifier's pretrained weights.
        text_weights: open_clip's name of the weights of --image-text, such as laion2b_s34b_b88k.
        prompts: texts for --image-text; {} stands for the class.
        class_map: CSV of annotator class, data set class, where their names differ.
        keep_classes: label with the annotator's own classes instead of the data set's.
        top_k: classes kept in each cell, if there are so many.
        image_size: side of the annotator's input in pixels; its own by default. Larger gives finer
            maps.
        fit: squash the whole image to a square, keep its shape, or crop its centre square. Tokens
            outside the crop get no label.
        flip: average with the mirrored image.
        scales: average over the image at these multiples of the input size.
        window: slide a window of this many pixels over the input, for annotators of a fixed size.
        grid: rows and columns of cells, for --masks and --boxes.
        first_mask_value: pixel value of the first class in --masks (1 in ADE20K's convention).
        ignored_mask_values: pixel values that mean "unlabelled" in --masks.
        codec: compact (about 2 kB an image), exact (keeps raw logits as float16), raw (as exact,
            not compressed).
        batch_size: images at a time; by default what fits.
        shard_size: images in a file of the store.
        device: cpu, cuda, mps, ...; auto takes the accelerator if there is one.
        dtype: arithmetic of the network; auto is bfloat16 on CUDA, float32 elsewhere.
        compile: compile the network, which pays on large data sets.
    """
    _require_one(
        student=student,
        image_text=image_text,
        masks=masks,
        boxes=boxes,
        model=None if student else model,
    )
    from tokenlabel.annotators.device import resolve_device
    from tokenlabel.annotators.image_model import Views
    from tokenlabel.annotators.run import run
    from tokenlabel.data.open import announce, open_images

    source = open_images(data, split, "train")
    announce(source, data)
    names = source.class_names
    place, number_format = resolve_device(device, dtype)
    network: dict[str, Any] = {
        "image_size": image_size,
        "fit": fit,
        "top_k": top_k,
        "views": Views(flip=flip, scales=scales, window=window),
        "device": place,
        "dtype": number_format,
        "compile": compile,
    }
    classes: dict[str, Any] = {
        "class_names": None if keep_classes else names,
        "class_table": class_map,
    }
    annotator: Annotator[Any]
    if masks is not None:
        from tokenlabel.annotators.masks import MaskAnnotator

        annotator = MaskAnnotator(
            masks,
            len(names),
            grid=grid,
            top_k=top_k,
            first_value=first_mask_value,
            ignore=ignored_mask_values,
        )
    elif boxes is not None:
        from tokenlabel.annotators.boxes import BoxAnnotator

        annotator = BoxAnnotator(boxes, names, grid=grid, top_k=top_k)
    elif image_text is not None:
        from tokenlabel.annotators.image_text import ImageTextAnnotator

        annotator = ImageTextAnnotator(
            image_text, names, weights=text_weights, prompts=prompts, **network
        )
    elif student is not None:
        from tokenlabel.annotators.student import StudentAnnotator

        annotator = StudentAnnotator(student, model, **classes, **network)
    elif model is not None:
        from tokenlabel.annotators.timm_classifier import TimmAnnotator

        annotator = TimmAnnotator(
            model,
            pretrained=pretrained,
            checkpoint=checkpoint,
            model_kwargs=timm_arguments(model_kwargs),
            **classes,
            **network,
        )
    manifest = run(
        source, annotator, output, batch_size=batch_size, shard_size=shard_size, codec=codec
    )
    return _report(output, manifest)


def _require_one(**options: object) -> None:
    given = sum(value is not None for value in options.values())
    if given != 1:
        spelled = ", ".join(f"--{name.replace('_', '-')}" for name in options)
        raise InputError(f"choose one annotator: {spelled} ({given or 'none'} given)")


def _report(output: Path, manifest: Manifest | None) -> int:
    """Say what was done; the exit code."""
    from tokenlabel.progress import console

    if manifest is None:
        console.print(
            f"{output}: this process is done, others are still writing; should the store stay"
            " unfinished, run the same command again"
        )
        return 0
    labelled = sum(shard.records for shard in manifest.shards)
    console.print(f"{output}: {labelled} images labelled")
    if not manifest.left_out:
        return 0
    for left in manifest.left_out[:_SHOWN]:
        console.print(f"  left out {left.key}: {left.reason}")
    if (more := len(manifest.left_out) - _SHOWN) > 0:
        console.print(f"  and {more} more: see {output / 'manifest.json'}")
    console.print(
        f"{len(manifest.left_out)} images were left out; repair them and run the same command"
        " again, or train without them"
    )
    return _UNREADABLE_EXIT_CODE
