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
    smoothing: float | None = None,
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
    cache: Cache = "auto",
    allow_changed: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
) -> None:
    """Fine-tune a classifier on your own folder, to annotate it.

    For classes that no pretrained model knows. The output folder is what `tokenlabel annotate --model`
    takes; it stores the class names and the input size.

    Args:
        data: images: a folder with one subfolder per class, a tar file, WebDataset shards, or
            hfds/owner/name.
        output: folder for the model. Its run, with curves and checkpoints, is in OUTPUT/run; to
            resume it, run the same command again.
        model: a timm classifier; convolutional networks are the best annotators.
        split: split to use (default: the training split).
        pretrained: start from pretrained weights.
        weights: start from these weights instead: a file, a run folder, or the output of another
            `teach`. The head is new if the classes differ.
        model_kwargs: further arguments of the timm model, as name value pairs; lists as [64,128].
        image_size: input size in pixels (default: the model's own).
        in_chans: number of input channels: 3 for RGB, 1 for grayscale.
        channels: channels of the images to use, numbered from 0 (default: all).
        epochs: number of epochs.
        batch_size: images per update.
        opt: a timm optimizer; from random weights, muon needs far fewer epochs than adamw.
        lr: peak learning rate; muon needs about twice that of adamw.
        weight_decay: weight decay of the optimizer.
        loss: cross-entropy (ce), or squared error of the probabilities (mse), which gives softer
            labels.
        smoothing: label smoothing of the cross-entropy; 0 turns it off (default: 0.1).
        stop_epoch: stop after this epoch: early stopping makes a classifier that is less accurate,
            but less overconfident on its training images.
        patience: stop after this many validations in a row without improvement.
        temperature: calibrate: divide the logits by the temperature that fits the held-out images
            best.
        min_scale: smallest share of the image that a random crop covers.
        hflip: random horizontal flips; turn off where left and right differ (digits, text).
        holdout: share of the images held out to measure the accuracy.
        folds: train this many classifiers, each without one fold of the images, which it labels
            later: so no image is labeled by a network that has memorized it. 2 folds cost as much
            as 1.
        group: images that stay together in a fold (frames of a video, a patient's pictures): a
            column of a CSV file, or a regular expression for their keys, such as ^[^_]+
        seed: random seed.
        device: auto uses a GPU if there is one.
        dtype: precision of the network. auto: half precision on GPUs; on CPUs the faster of float32
            and bfloat16, found by a short trial.
        workers: data loading processes; 0 loads in the main process. Does not change the result.
        cache: keep decoded images in memory (`ram`), in a file (`disk`, in TOKENLABEL_CACHE, shared
            with later runs), or not at all (`none`); the result is the same. `auto`: in memory if
            they take less than 2 GB. `device` keeps small images of one size on the GPU.
        allow_changed: a value that may differ from the run being resumed, such as optimizer.lr or
            schedule.epochs; can be given several times. Each change is recorded.
    """
    given = {**locals()}
    from tokenlabel.api.teach import teach as run
    from tokenlabel.cli.said import left_out, say, say_next
    from tokenlabel.text import argument_values

    taught = run(**given | {"model_kwargs": argument_values(model_kwargs or {})})
    say(f"taught on {taught.images:,} images{left_out(taught.left_out)}")
    if taught.accuracy is not None:
        judged = f"{taught.held_out} images not trained on"
        say(f"top-1 {taught.accuracy:.1%} of {judged}, after the last epoch")
    say(f"the model: {output}")
    say_next(
        "annotate",
        ("--data", data),
        ("--split", split),
        ("--channels", *channels) if channels else None,
        ("--model", output),
        ("--output", output.with_name(f"{output.name}-labels")),
    )
