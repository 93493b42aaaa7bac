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

    labels the photos with that classifier once, then trains on image and token labels together.
    Stopped or killed, the same command goes on where it was. On several GPUs:
    torchrun --nproc-per-node 8 -m tokenlabel train ...

    Args:
        data: folder with one subfolder per class, or with train/ and val/ holding such; or a tar,
            WebDataset shards, hfds/owner/name.
        output: folder of the run: recipe, metrics, curves, checkpoints, results.
        recipe: where all values come from that you do not give: a name of `tokenlabel recipes list` or a
            YAML file. By default `finetune` where there are weights to start from (--weights, or the
            model's pretrained ones), else `starter`, from random weights.
        model: the transformer to train: any name that timm knows, or lvvit_t, lvvit_s, ...
        image_size: side of the training images in pixels.
        in_chans: channels of the images: 3 are red, green and blue, 1 is gray.
        channels: which of the images' channels the model sees, by number from 0; all by default.
        weights: start from these weights: a checkpoint file, the folder of a run, or `pretrained` for
            timm's own.
        freeze: `backbone` trains the heads alone: a linear probe of --weights.
        annotator: timm name (or folder) of the classifier that labels the images first; its
            classes must be those of the folder (`tokenlabel teach` makes such a one).
        labels: a label store made by `tokenlabel annotate`, in place of an annotator. Several, of
            classes or of visual words, teach one token head each. Images without classes train with
            them alone.
        online: ask the annotator anew for every augmented view, and store nothing.
        supervision: what to learn from: token-labels is the method; labels (ground truth only) and
            distillation (the annotator's label of the whole image) are what to compare it with.
        mix: how the images of a batch are mixed.
        split: part of the data to train on; the training part by default.
        val: validation images, if they are not in a val/ folder beside train/. Where there are none, a
            tenth of each class is held out for validation (--set data.holdout=0 holds out nothing).
        val_split: part of the data to validate on; the validation part by default.
        epochs: passes over the images; the warm-up of the recipe then takes a tenth of them at most.
        max_steps: stop after so many updates, for a trial.
        patience: stop when so many validations in a row were no better than the best before them.
        batch_size: images per update over all GPUs together.
        lr: peak learning rate.
        scale: how the recipe's learning rate follows a changed batch size.
        seed: seed of the initial weights, the order of the images and their augmentation.
        device: auto takes a GPU where there is one.
        dtype: arithmetic of the network; auto is half precision on GPUs, and on a CPU the quicker of
            float32 and bfloat16, by a short trial.
        device_batch: at most so many images at once on a device; a larger share of the batch is
            accumulated, with the same result. auto is as many as a GPU has memory for.
        workers: processes per GPU that load images.
        cache: keep decoded images: `ram` (each GPU's process its own), `disk` (one file for all and for
            later runs, in TOKENLABEL_CACHE), `device` (small images of one size and their labels, on the
            GPU, for crops and flips only), or `none`.
        allow_changed: a value that may differ from that of the run that is to go on, such as
            optimizer.lr or schedule.epochs; may be given several times, and is recorded.
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
            f" --model {recipe.model.name} --supervision labels --weights {quote(str(done.folder))}"
        )
        return
    say_next(
        "eval",
        ("--data", images.train if images.val is None else images.val),
        ("--split", images.val_split),
        ("--checkpoint", done.folder),
    )
