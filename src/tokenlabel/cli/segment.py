"""`tokenlabel segment train | eval | compare | predict`: from a backbone to the class of every pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from tokenlabel.choices import Arithmetic, Device
from tokenlabel.cli.said import say, say_next
from tokenlabel.cli.settings import Settings, all_of
from tokenlabel.progress import first_process
from tokenlabel.segmentation.recipe import HeadKind, Layout

__all__ = ["compare", "evaluate", "predict", "train"]


def train(
    *,
    data: Path,
    output: Path = Path("runs/segment"),
    recipe: str = "lvvit_s_upernet_ade20k",
    backbone: str | None = None,
    weights: str | None = None,
    head: HeadKind | None = None,
    freeze_backbone: bool = False,
    labels: str | None = None,
    classes: Path | None = None,
    ignore_index: int | None = None,
    layout: Layout | None = None,
    split: str | None = None,
    updates: int | None = None,
    max_steps: int | None = None,
    patience: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    device: Device | None = None,
    dtype: Arithmetic | None = None,
    device_batch: int | Literal["auto"] | None = None,
    workers: int | None = None,
    allow_changed: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    settings: Settings = (),
    show: bool = False,
) -> None:
    """Train a network that gives every pixel a class.

    tokenlabel segment train --data ADEChallengeData2016 --weights runs/train

    Stopped or killed, the same command goes on where it was. On several GPUs:
    torchrun --nproc-per-node 8 -m tokenlabel segment train ...

    Args:
        data: folder with images/{training,validation}/*.jpg and annotations/{...}/*.png (ADE20K),
            with leftImg8bit/ and gtFine/ (Cityscapes), or of images and masks side by side.
        output: folder of the run: recipe, metrics, curves, checkpoints, results.
        recipe: where all values come from that you do not give: a name (`lvvit_s_upernet_ade20k`,
            `camvid_cpu` ...; NAME_smoke is a quick trial on a CPU) or a YAML file.
        backbone: the network below the head: lvvit_s, or any name that timm knows.
        weights: start from these weights: a folder of `tokenlabel train` or of `tokenlabel export`,
            which says itself which backbone it holds; a file of weights; or `pretrained`.
        head: upernet, fcn, or linear: a batch norm and a 1x1 convolution on the backbone's last map
            (linear4: on four maps).
        freeze_backbone: train the head alone. The features of 4 views of each image are made once and
            kept in memory (augment.views sets their number; null keeps none and draws without end).
        labels: a store of `tokenlabel annotate segmenter`: soft labels of the scenes without a mask.
        classes: file with the class names, in the order of their mask values: JSON list, or one a
            line. Without it, classes.json, classes.txt or objectInfo150.txt of the data folder.
        ignore_index: the mask value of pixels without class: 0 for ADE20K, elsewhere 255.
        layout: how the folder is laid out, where it does not show by itself.
        split: part of the data to train on; the training part by default.
        updates: length of the training.
        max_steps: stop after so many updates, for a trial.
        patience: stop when so many validations in a row were no better than the best before them.
        batch_size: images per update over all GPUs together.
        lr: peak learning rate.
        seed: seed of the initial weights, the order of the images and their augmentation.
        device: auto takes a GPU where there is one.
        dtype: arithmetic of the network; auto is half precision on GPUs, and on a CPU the quicker of
            float32 and bfloat16, by a short trial.
        device_batch: at most so many images at once on a device; a larger share of the batch is
            accumulated, with the same result. auto is as many as a GPU has memory for.
        workers: processes per GPU that load images.
        allow_changed: a value that may differ from that of the run that is to go on, such as
            optimizer.lr or schedule.updates; may be given several times, and is recorded.
        settings: any other value of the recipe, as section.key=value ...
        show: print the complete recipe as YAML and stop.
    """
    given = {**locals(), "settings": all_of(settings)}
    from tokenlabel.api import segment
    from tokenlabel.runs.recipe_file import to_yaml

    for name in ("output", "allow_changed", "show"):
        del given[name]
    chosen = segment.compose_recipe(**given)
    if show:
        print(to_yaml(chosen), end="")
        return
    result = segment.train(recipe=chosen, output=output, allow_changed=allow_changed)
    best = result.results.get("best_miou")
    say("nothing was validated" if best is None else f"best mIoU {best:.4f} in validation")
    say(f"the run: {result.folder}")
    say_next(
        *("segment", "eval"),
        ("--data", chosen.data.root),
        ("--checkpoint", result.folder),
    )


def evaluate(
    *,
    data: Path,
    checkpoint: Path,
    recipe: str | None = None,
    split: str = "validation",
    output: Path | None = None,
    window: int | None = None,
    stride: int | None = None,
    whole: bool = False,
    multi_scale: bool = False,
    scales: tuple[float, ...] | None = None,
    flip: bool | None = None,
    classes: Path | None = None,
    ignore_index: int | None = None,
    layout: Layout | None = None,
    settings: Settings = (),
    batch_size: int = 4,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
) -> None:
    """Measure a segmentation model: mean IoU, boundary IoU, mean class accuracy, pixel accuracy.

    tokenlabel segment eval --data ADEChallengeData2016 --checkpoint runs/segment

    writes the tables of classes and of scenes as CSV, and a picture. Each mean has a 95 % confidence
    interval over scenes. Released checkpoints of mmsegmentation's
    layout are read too: --checkpoint FILE --recipe lvvit_s_upernet_ade20k. Start it with torchrun
    to use several processes or GPUs: the numbers are the same.

    Args:
        data: a data set as for `segment train`.
        checkpoint: a run's folder (its best checkpoint is taken), a step-... folder of its checkpoints,
            or a file of weights; a file
            needs --recipe too.
        recipe: name or YAML file of the recipe that says the shape of a file's model.
        split: which part of the data set.
        output: folder for table.csv, table.png, scenes.csv and results.json (default: one in
            evaluation/ of the
            run's folder, named by weights, data, size and scales; nothing is written for a file).
        window: side of the sliding window in pixels, in place of the recipe's.
        stride: pixels from one window to the next.
        whole: show each image whole, without a window.
        multi_scale: average over scales 0.5, 0.75, 1, 1.25, 1.5, 1.75 and mirror images.
        scales: average over these scales.
        flip: average over mirror images.
        classes: file with the class names.
        ignore_index: the mask value of pixels without class.
        layout: how the folder is laid out.
        settings: any other value of the recipe, as section.key=value ...: test.short_side=640, or
            data.orientation=apply.
        batch_size: windows at once; does not change the result.
        device: auto takes a GPU where there is one.
        dtype: arithmetic of the network; auto is half precision on GPUs, and on a CPU the quicker of
            float32 and bfloat16, by a short trial (float32 for fewer than 100 images).
    """
    given = {**locals(), "settings": all_of(settings)}
    from tokenlabel.api import segment

    del given["multi_scale"]
    given["scales"] = scales or (segment.MULTI_SCALE if multi_scale else (1.0,))
    given["flip"] = multi_scale if flip is None else flip
    result = segment.evaluate(**given)
    if not first_process():
        return
    for note in result.notes:
        print(note)
    for name, value in result.summary().items():
        low, high = result.intervals[name]
        print(f"{name} {value:.4f}  ({low:.4f} to {high:.4f})")
    if result.miou_all != result.miou:
        print(
            f"miou is the mean over the {len(result.class_iou)} classes that occur or are predicted;"
            " miou_all counts the others as 0"
        )
    if result.folder is not None:
        print(f"{result.folder}: results.json, table.csv, table.png, scenes.csv")
    if recipe is None:
        say_next("segment", "predict", ("--images", "PHOTOS"), ("--checkpoint", checkpoint))


def compare(
    *,
    data: Path,
    checkpoints: tuple[Path, ...],
    against: tuple[Path, ...],
    output: Path | None = None,
    split: str = "validation",
    window: int | None = None,
    stride: int | None = None,
    whole: bool = False,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    classes: Path | None = None,
    ignore_index: int | None = None,
    layout: Layout | None = None,
    batch_size: int = 4,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
) -> None:
    """Compare two segmentation networks on the same scenes.

    tokenlabel segment compare --data camvid --checkpoints runs/a --against runs/b

    Differences are paired by scene, so that scenes that are hard for both do not hide them; the
    intervals and p-values are those of scenes drawn again with replacement. Give several runs a side,
    one a seed, and these are drawn again too.

    Args:
        data: a data set as for `segment train`.
        checkpoints: folders of runs.
        against: folders of the runs that they are compared with.
        output: a JSON file of all numbers, the difference of every scene among them.
        split: which part of the data set.
        window: side of the sliding window in pixels, in place of the recipe's.
        stride: pixels from one window to the next.
        whole: show each image whole, without a window.
        scales: average over these scales.
        flip: average over mirror images.
        classes: file with the class names.
        ignore_index: the mask value of pixels without class.
        layout: how the folder is laid out.
        batch_size: windows at once; does not change the result.
        device: auto takes a GPU where there is one.
        dtype: arithmetic of the network; auto is half precision on GPUs, and on a CPU the quicker of
            float32 and bfloat16, by a short trial (float32 for fewer than 100 images).
    """
    given = dict(locals())
    from tokenlabel.api import segment

    result = segment.compare(**given)
    if not first_process():
        return
    for name, gap in result.differences.items():
        low, high = gap.interval
        print(
            f"{name}  {result.first[name]:.4f} against {result.second[name]:.4f}:"
            f" {gap.mean:+.4f}  ({low:+.4f} to {high:+.4f}, p = {gap.p:.3f})"
        )
    print(
        f"of {len(result.scenes)} scenes, {result.ahead} are better and {result.behind} are worse"
    )
    if output is not None:
        print(f"{output}: all numbers")


def predict(
    *,
    images: Path,
    checkpoint: Path,
    output: Path = Path("segmented"),
    multi_scale: bool = False,
    tile: int = 1024,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
) -> None:
    """Give every pixel of your pictures a class: label images and color overlays.

    tokenlabel segment predict --images photos --checkpoint runs/segment

    Args:
        images: a picture, or a folder of pictures.
        checkpoint: a run's folder; its best checkpoint is taken.
        output: labels/NAME.png (mask values as in the training data), overlays/NAME.png and
            legend.png with the colors of the classes.
        multi_scale: average over six scales and mirror images: slower, a little better.
        tile: pixels on a side that are made at once; less takes less memory, with the same result.
        device: auto takes a GPU where there is one.
        dtype: arithmetic of the network; auto is half precision on GPUs, and on a CPU the quicker of
            float32 and bfloat16, by a short trial (float32 for fewer than 100 images).
    """
    from tokenlabel.api import segment

    done = segment.predict(
        images=images,
        checkpoint=checkpoint,
        output=output,
        scales=segment.MULTI_SCALE if multi_scale else (1.0,),
        flip=multi_scale,
        tile=tile,
        device=device,
        dtype=dtype,
    )
    print(
        f"{done.folder}: {done.images} images in labels/ and overlays/, their colors in legend.png"
    )
    if done.oriented:
        print(f"{done.oriented} of them carry an EXIF orientation: see data.orientation")
