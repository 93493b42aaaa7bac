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
    """Train a semantic segmentation network.

    tokenlabel segment train --data ADEChallengeData2016 --weights runs/train

    To resume an interrupted run, run the same command again. On several GPUs:
    torchrun --nproc-per-node 8 -m tokenlabel segment train ...

    Args:
        data: folder with images/{training,validation}/*.jpg and annotations/{...}/*.png (ADE20K),
            with leftImg8bit/ and gtFine/ (Cityscapes), or with images next to their masks.
        output: run folder: recipe, metrics, curves, checkpoints, results.
        recipe: the values of all options that you do not give: a name (`lvvit_s_upernet_ade20k`,
            `camvid_cpu` ...; NAME_smoke is a quick trial on a CPU), or a YAML file.
        backbone: backbone: lvvit_s, or any timm name.
        weights: initial weights of the backbone: a folder of `tokenlabel train` or `tokenlabel
            export` (which also names the backbone), a weights file, or `pretrained`.
        head: upernet, fcn, or linear: a batch norm and a 1x1 convolution on the last feature map
            (linear4: on four maps).
        freeze_backbone: train only the head. The features of 4 views per image are computed once
            and kept in memory (augment.views sets the number of views; null computes new views all
            the time).
        labels: a store of `tokenlabel annotate segmenter`: soft labels for scenes without a mask.
        classes: file with the class names in the order of their mask values: a JSON list, or one name
            per line (default: classes.json, classes.txt or objectInfo150.txt in the data folder).
        ignore_index: mask value of pixels without a class (default: 0 for ADE20K, else 255).
        layout: layout of the folder (default: detected).
        split: split to train on (default: the training split).
        updates: number of updates. The warm-up is limited to a tenth of them.
        max_steps: stop after this many updates, for a quick trial.
        patience: stop after this many validations in a row without improvement.
        batch_size: images per update, over all GPUs.
        lr: peak learning rate.
        seed: random seed of the initial weights, the image order and the augmentation.
        device: auto uses a GPU if there is one.
        dtype: precision of the network. auto: half precision on GPUs; on CPUs the faster of float32
            and bfloat16, found by a short trial.
        device_batch: most images per device at once; larger batches are accumulated, with the same
            result. auto: as many as fit in GPU memory.
        workers: data loading processes per GPU.
        allow_changed: a value that may differ from the run being resumed, such as optimizer.lr or
            schedule.updates; can be given several times. Each change is recorded.
        settings: any other value of the recipe, as section.key=value ...
        show: print the complete recipe as YAML and stop.
    """
    given = {**locals(), "settings": all_of(settings)}
    from tokenlabel.api import segment
    from tokenlabel.runs.recipe_file import to_yaml

    for name in ("allow_changed", "show"):
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

    Prints each mean with its 95 % confidence interval over scenes. Writes tables of classes and scenes
    as CSV, and a picture. Reads released mmsegmentation checkpoints too: --checkpoint FILE --recipe
    lvvit_s_upernet_ade20k. To use several GPUs, start it with torchrun; the numbers are the same.

    Args:
        data: a data set as for `segment train`.
        checkpoint: a run folder (its best checkpoint is used), one of its step-... checkpoints,
            or a weights file; a file also needs --recipe.
        recipe: recipe of the model in a weights file: a name or a YAML file.
        split: split to evaluate.
        output: folder for table.csv, table.png, scenes.csv and results.json (default: a folder in
            evaluation/ of the run, named after weights, data, size and scales; nothing is written for a
            weights file).
        window: side of the sliding window in pixels (default: the recipe's).
        stride: stride of the sliding window in pixels.
        whole: process each image as a whole, without a window.
        multi_scale: average over scales 0.5, 0.75, 1, 1.25, 1.5, 1.75 and flipped images.
        scales: average over these scales.
        flip: average over flipped images.
        classes: file with the class names (default: the recipe's, else the one in the data folder).
        ignore_index: the mask value of pixels without class (default: the recipe's, else by layout).
        layout: how the folder is laid out (default: the recipe's, else detected).
        settings: any other value of the recipe, as section.key=value ...: test.short_side=640, or
            data.orientation=apply.
        batch_size: windows per batch; does not change the result.
        device: auto uses a GPU if there is one.
        dtype: precision of the network. auto: half precision on GPUs; on CPUs the faster of float32
            and bfloat16, found by a short trial (float32 for fewer than 100 images).
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
    recipe: str | None = None,
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
    """Compare two segmentation models on the same scenes.

    tokenlabel segment compare --data camvid --checkpoints runs/a --against runs/b

    Differences are paired by scene. Intervals and p-values count how much scenes differ, and with
    several runs per side also how much runs differ.

    Args:
        data: a data set as for `segment train`.
        checkpoints: run folders of the first side, or weights files; files also need --recipe.
        against: those of the second side; equally many are paired in their order (seeds).
        recipe: recipe of the models in weights files: a name or a YAML file.
        output: JSON file for all numbers, with the difference of every scene.
        split: split to evaluate.
        window: side of the sliding window in pixels (default: the recipe's).
        stride: stride of the sliding window in pixels.
        whole: process each image as a whole, without a window.
        scales: average over these scales.
        flip: average over flipped images.
        classes: file with the class names (default: the recipe's, else the one in the data folder).
        ignore_index: the mask value of pixels without class (default: the recipe's, else by layout).
        layout: how the folder is laid out (default: the recipe's, else detected).
        batch_size: windows per batch; does not change the result.
        device: auto uses a GPU if there is one.
        dtype: precision of the network. auto: half precision on GPUs; on CPUs the faster of float32
            and bfloat16, found by a short trial (float32 for fewer than 100 images).
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
    print(result.note)
    if output is not None:
        print(f"{output}: all numbers")


def predict(
    *,
    images: Path,
    checkpoint: Path,
    recipe: str | None = None,
    classes: Path | None = None,
    ignore_index: int | None = None,
    output: Path = Path("segmented"),
    multi_scale: bool = False,
    tile: int = 1024,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
) -> None:
    """Segment a folder of pictures; write label images and color overlays.

    tokenlabel segment predict --images photos --checkpoint runs/segment

    Args:
        images: a picture, or a folder of pictures; masks beside them (a.jpg and a.png, or a.png and
            a_mask.png) are left out.
        checkpoint: a run folder (its best checkpoint is used), or a weights file with --recipe.
        recipe: recipe of the model in a weights file: a name or a YAML file.
        classes: file with the class names of a weights file (default: the class list beside it).
        ignore_index: mask value of pixels without a class, for a weights file (default: the recipe's).
        output: folder for labels/NAME.png (mask values as in the training data), overlays/NAME.png
            and legend.png.
        multi_scale: average over scales 0.5, 0.75, 1, 1.25, 1.5, 1.75 and flipped images.
        tile: side of the output tiles in pixels; smaller tiles need less memory, with the same
            result.
        device: auto uses a GPU if there is one.
        dtype: precision of the network. auto: half precision on GPUs; on CPUs the faster of float32
            and bfloat16, found by a short trial (float32 for fewer than 100 images).
    """
    given = {**locals()}
    from tokenlabel.api import segment

    del given["multi_scale"]
    given |= {"scales": segment.MULTI_SCALE if multi_scale else (1.0,), "flip": multi_scale}
    done = segment.predict(**given)
    print(f"written to {done.folder}: labels/, overlays/, legend.png ({done.images} images)")
    if done.masks:
        print(f"{done.masks} masks beside them are left out")
    if done.oriented:
        print(f"{done.oriented} of them carry an EXIF orientation: see data.orientation")
