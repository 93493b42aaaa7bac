"""`tokenlabel train`: train a transformer on a folder of images."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from tokenlabel.choices import Arithmetic, Cache, Device
from tokenlabel.cli.said import left_out, say, say_next
from tokenlabel.cli.settings import Settings, all_of
from tokenlabel.errors import InputError
from tokenlabel.runs.recipe_file import read_recipe, to_yaml
from tokenlabel.runs.results import TrainResult
from tokenlabel.supervision import METHODS

__all__ = ["train"]

if TYPE_CHECKING:
    Kind = str
else:
    Kind = Literal[tuple(METHODS)]

_MEASURES = {"top1": "top-1", "map": "mAP", "knn": "nearest-neighbor accuracy"}


def train(
    *,
    data: str,
    output: Path = Path("runs/train"),
    recipe: str | None = None,
    model: str | None = None,
    image_size: int | None = None,
    in_chans: int | None = None,
    channels: tuple[int, ...] = (),
    weights: str | None = None,
    freeze: Literal["none", "backbone"] | None = None,
    annotator: str | None = None,
    labels: tuple[str, ...] = (),
    online: bool = False,
    supervision: Kind | None = None,
    mix: Literal["none", "mixtoken", "cutmix", "mixup", "cutmix-or-mixup"] | None = None,
    split: str | None = None,
    val: str | None = None,
    val_split: str | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    patience: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    scale: Literal["linear", "sqrt", "none"] = "linear",
    seed: int | None = None,
    device: Device | None = None,
    dtype: Arithmetic | None = None,
    device_batch: int | Literal["auto"] | None = None,
    workers: int | None = None,
    cache: Cache | None = None,
    allow_changed: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    settings: Settings = (),
    show: bool = False,
) -> None:
    """Train a vision transformer on a folder of images, with one soft label per patch token.

    tokenlabel train --data photos --annotator convnext_tiny.in12k_ft_in1k

    labels the photos once with that classifier, then trains on image and token labels together. To
    resume an interrupted run, run the same command again. On several GPUs:
    torchrun --nproc-per-node 8 -m tokenlabel train ...

    Args:
        data: folder with one subfolder per class, or with train/ and val/ that contain such
            subfolders; or a tar file, WebDataset shards, or hfds/owner/name.
        output: run folder: recipe, metrics, curves, checkpoints, results.
        recipe: the values of all options that you do not give: a name from `tokenlabel recipes
            list`, or a YAML file. Default: `finetune` if there are weights to start from
            (--weights, or the model's pretrained weights), else `starter`, which trains from random
            weights.
        model: the model to train: any timm name, or lvvit_t, lvvit_s, ... (default: that of --weights,
            if they are in a folder, else the recipe's).
        image_size: side of the training images in pixels (default: the recipe's; without --recipe,
            that of the model in the folder --weights).
        in_chans: number of input channels: 3 for RGB, 1 for grayscale.
        channels: channels of the images to use, numbered from 0 (default: all).
        weights: initial weights: a run folder, a folder written by timm or `tokenlabel export`, a
            checkpoint file (with --model), or `pretrained` for timm's own.
        freeze: `backbone` trains only the heads: a linear probe of --weights.
        annotator: timm name (or folder) of the classifier that labels the images first. It must
            know the classes of the data (`tokenlabel teach` trains one).
        labels: label store made by `tokenlabel annotate`, instead of --annotator. Several stores,
            of classes or visual words, train one token head each. Images without classes need
            nothing else.
        online: run the annotator on every augmented view during training, instead of storing
            labels.
        supervision: what to learn from: token-labels (the method), or a baseline: labels (ground
            truth only) or distillation (the annotator's label of the whole image).
        mix: how to mix the images of a batch.
        split: split to train on (default: the training split).
        val: validation images, if they are not in val/ next to train/. If there are none, a tenth
            of each class is held out (--set data.holdout=0 turns this off).
        val_split: split to validate on (default: the validation split).
        epochs: number of epochs. The warm-up is limited to a tenth of them.
        max_steps: stop after this many updates, for a quick trial.
        patience: stop after this many validations in a row without improvement.
        batch_size: images per update, over all GPUs.
        lr: peak learning rate.
        scale: how the recipe's learning rate scales with a changed batch size.
        seed: random seed of the initial weights, the image order and the augmentation.
        device: auto uses a GPU if there is one.
        dtype: precision of the network. auto: half precision on GPUs; on CPUs the faster of float32
            and bfloat16, found by a short trial.
        device_batch: most images per device at once; larger batches are accumulated, with the same
            result. auto: as many as fit in GPU memory.
        workers: data loading processes per GPU.
        cache: keep decoded images in memory (`ram`, per process), in a file (`disk`, in
            TOKENLABEL_CACHE, shared by processes and later runs), or not at all (`none`); the result is
            the same. `auto` (the default): in memory if they take less than 2 GB. `device` keeps small
            images of one size and their labels on the GPU, for training with crops and flips only.
        allow_changed: a value that may differ from the run being resumed, such as optimizer.lr or
            schedule.epochs; can be given several times. Each change is recorded.
        settings: any other value of the recipe, as section.key=value ...
        show: print the complete recipe as YAML and stop.
    """
    given = {**locals(), "settings": all_of(settings)}
    from tokenlabel.api.train import train as run
    from tokenlabel.api.train import train_recipe

    if annotator is not None and labels:
        raise InputError(f"--annotator {annotator} and --labels {labels[0]}: choose one of them")
    if given.pop("show"):
        for name in ("annotator", "allow_changed"):
            del given[name]
        print(to_yaml(train_recipe(**given)), end="")
        return
    _report(run(**given))


def _report(done: TrainResult) -> None:
    """What came of it, and the next command."""
    results, recipe = done.results, read_recipe(done.folder / "recipe.yaml")
    if results.get("images") is not None:
        say(f"trained on {results['images']:,} images{left_out(results['left_out'])}")
    if (best := results[f"best_{recipe.measure}"]) is not None:
        say(f"best {_MEASURES[recipe.measure]} {best:.2%} ({results['best_checkpoint']})")
    say(f"the run: {done.folder}")
    images = recipe.data
    if recipe.model.num_classes == 0:  # it has learned words: its body is for other images
        say(
            "next: train on labeled images from its weights: tokenlabel train --data DATA"
            f" --supervision labels --weights {quote(str(done.folder))}"
        )
        return
    say_next(
        "eval",
        ("--data", images.train if images.val is None else images.val),
        ("--split", images.val_split),
        ("--checkpoint", done.folder),
    )
