"""`tokenlabel teach`: make an annotator of your own images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from tokenlabel.choices import Arithmetic, Cache, Device, ModelArguments

__all__ = ["teach"]


def teach(
    *,
    data: str,
    output: Path,
    model: str = "resnet50",
    split: str | None = None,
    pretrained: bool = True,
    weights: Path | None = None,
    model_kwargs: ModelArguments | None = None,
    image_size: int | None = None,
    in_chans: int = 3,
    channels: tuple[int, ...] = (),
    epochs: int = 20,
    batch_size: int = 64,
    opt: str = "adamw",
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    loss: Literal["ce", "mse"] = "ce",
    smoothing: float = 0.1,
    stop_epoch: int | None = None,
    patience: int | None = None,
    temperature: bool = False,
    min_scale: float = 0.35,
    hflip: bool = True,
    holdout: float = 0.1,
    folds: int = 1,
    group: str | None = None,
    seed: int = 0,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
    workers: int = 0,
    cache: Cache = "none",
    allow_changed: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
) -> None:
    """Fine-tune a classifier on your own folder, to annotate it.

    For classes that no pretrained model knows. The result is a folder that `tokenlabel annotate
    --model FOLDER` takes; class names and input size travel with it.

    Args:
        data: images: a folder of class folders, a tar, WebDataset shards, hfds/owner/name.
        output: folder of the taught model; its run, with curves and checkpoints, is in OUTPUT/run, and
            the same command goes on where it was stopped.
        model: a timm classifier; convolutional ones make the best annotators.
        split: part of the data set, where it has parts; the training part by default.
        pretrained: start from the model's pretrained weights.
        weights: start from these instead: a file, a run's folder or that of a taught model; a head of
            other classes is made anew.
        model_kwargs: further arguments of the timm model, as name value pairs; lists as [64,128].
        image_size: side of the input in pixels; the model's own by default.
        in_chans: channels of the images: 3 are red, green and blue, 1 is gray.
        channels: which of the images' channels it sees, by number from 0; all by default.
        epochs: passes over the images.
        batch_size: images a step.
        opt: an optimizer of timm; from random weights muon needs far fewer epochs than adamw.
        lr: peak learning rate; muon takes about twice that of adamw.
        weight_decay: weight decay of the optimizer.
        loss: cross-entropy, or the squared error of the probabilities (mse), whose labels are softer.
        smoothing: label smoothing of the cross-entropy; 0 for none.
        stop_epoch: end after so many of the epochs: an early classifier is less accurate, and less sure
            of the images that it has seen.
        patience: stop when so many validations in a row were no better than the best before them.
        temperature: divide the finished classifier's logits by the temperature that suits the images
            that were held out.
        min_scale: random crops cover at least this share of the image.
        hflip: mirror images at random; switch off where left and right differ (digits, text).
        holdout: share of the images that is kept back to tell the accuracy.
        folds: train so many classifiers, each without its share of the images, which it then labels:
            labels by a network that has not memorized them. 2 cost as much as one.
        group: images that stay together in a fold (frames of a video, a patient's pictures): a column
            of a CSV file, or a regular expression for their keys, such as ^[^_]+
        seed: seed of all random choices.
        device: auto takes a GPU where there is one.
        dtype: arithmetic of the network; auto is half precision on GPUs, and on a CPU the quicker of
            float32 and bfloat16, by a short trial.
        workers: processes that read images; 0 reads in this one. Never changes the result.
        cache: keep decoded images: `ram`, `disk` (a file in TOKENLABEL_CACHE that later runs find
            again), `device` (small images of one size, on the GPU) or `none`.
        allow_changed: a value that may differ from that of the run that is to go on, such as
            optimizer.lr or schedule.epochs; may be given several times.
    """
    given = {**locals()}
    from tokenlabel.api.teach import teach as run
    from tokenlabel.cli.said import left_out, say, say_next
    from tokenlabel.text import argument_values

    taught = run(**given | {"model_kwargs": argument_values(model_kwargs or {})})
    say(f"taught on {taught.images:,} images{left_out(taught.left_out)}")
    if taught.accuracy is not None:
        say(f"top-1 {taught.accuracy:.1%} of {taught.held_out} images not trained on")
    say(f"the model: {output}")
    say_next(
        "annotate",
        ("--data", data),
        ("--split", split),
        ("--channels", " ".join(map(str, channels)) or None),
        ("--model", output),
        ("--output", output.with_name(f"{output.name}-labels")),
    )
