"""`tokenlabel segment train | eval | predict`: from a backbone to the class of every pixel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tokenlabel.errors import InputError
from tokenlabel.files import write_atomically
from tokenlabel.runs.recipe_file import override, read_recipe, to_yaml
from tokenlabel.runs.results import TrainResult
from tokenlabel.segmentation.recipe import HeadKind, Layout, SegmentationRecipe

__all__ = ["evaluate", "predict", "train"]

_MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
_NOT_BACKBONE = ("img_size", "num_classes", "global_pool", "heads")  # a student's, gone from here


def train(
    *,
    data: Path,
    output: Path = Path("runs/segment"),
    recipe: str = "lvvit_s_upernet_ade20k",
    backbone: str | None = None,
    weights: str | None = None,
    head: HeadKind | None = None,
    classes: Path | None = None,
    ignore_index: int | None = None,
    layout: Layout | None = None,
    updates: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    overrides: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = (),
    show: bool = False,
) -> TrainResult | None:
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
        head: upernet or fcn.
        classes: file with the class names, in the order of their mask values: JSON list, or one a
            line. Without it, classes.json, classes.txt or objectInfo150.txt of the data folder.
        ignore_index: the mask value of pixels without class: 0 for ADE20K, elsewhere 255.
        layout: how the folder is laid out, where it does not show by itself.
        updates: length of the training, in place of the recipe's.
        batch_size: images per update over all GPUs together, in place of the recipe's.
        seed: of initial weights, order and augmentation.
        workers: processes per GPU that load images.
        overrides: any other value of the recipe, as section.key=value ...
        show: print the complete recipe as YAML and stop.
    """
    chosen = override(
        _recipe(recipe),
        [
            *_start(weights),
            *_given("data.root", str(data)),
            *_given("data.classes", classes and str(classes)),
            *_given("data.ignore_index", ignore_index),
            *_given("data.layout", layout),
            *_given("data.workers", workers),
            *_given("model.backbone", backbone),
            *_given("model.head", head),
            *_given("schedule.updates", updates),
            *_given("schedule.batch_size", batch_size),
            *_given("seed", seed),
            *overrides,
        ],
    )
    if show:
        print(to_yaml(chosen), end="")
        return None
    from tokenlabel.segmentation import run

    return run.train(chosen, output)


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
    batch_size: int = 4,
    device: Literal["auto", "cpu"] = "auto",
) -> dict[str, float]:
    """Measure a segmentation model: mean IoU, mean class accuracy, pixel accuracy.

    tokenlabel segment eval --data ADEChallengeData2016 --checkpoint runs/segment

    writes the table of classes as CSV and as a picture. Released checkpoints of mmsegmentation's
    layout are read too: --checkpoint FILE --recipe lvvit_s_upernet_ade20k. Start it with torchrun
    to use several processes or GPUs: the numbers are the same.

    Args:
        data: a data set as for `segment train`.
        checkpoint: a run's folder (its best checkpoint is taken), or a file of weights; a file
            needs --recipe too.
        recipe: name or YAML file of the recipe that says the shape of a file's model.
        split: which part of the data set.
        output: folder for table.csv, table.png and results.json (default: evaluation/ in the run's
            folder; nothing is written for a file).
        window: side of the sliding window in pixels, in place of the recipe's.
        stride: pixels from one window to the next.
        whole: show each image whole, without a window.
        multi_scale: average over scales 0.5, 0.75, 1, 1.25, 1.5, 1.75 and mirror images.
        scales: average over these scales.
        flip: average over mirror images.
        classes: file with the class names.
        ignore_index: the mask value of pixels without class.
        layout: how the folder is laid out.
        batch_size: windows at once; does not change the result.
        device: auto takes a GPU where there is one.
    """
    from tokenlabel.runs.recipe import Engine
    from tokenlabel.segmentation.evaluate import evaluate_pairs
    from tokenlabel.segmentation.metrics import draw_table, write_table
    from tokenlabel.segmentation.pairs import open_pairs
    from tokenlabel.segmentation.run import load_checkpoint, load_segmenter
    from tokenlabel.training.ranks import Ranks

    pairs = open_pairs(data, split, layout=layout, class_file=classes, ignore_index=ignore_index)
    if recipe is not None:
        trained = load_checkpoint(checkpoint, _recipe(recipe), pairs.classes)
    else:
        trained = load_segmenter(checkpoint)
    if trained.classes.names != pairs.classes.names:
        raise InputError(
            f"the model knows {len(trained.classes)} classes and {data} has {len(pairs.classes)},"
            " or others: measure it on the classes it was trained on"
        )
    ranks = Ranks(Engine(device=device))
    segmenter = trained.segmenter(
        ranks.device,
        **_window(window, stride, whole),
        scales=scales or (_MULTI_SCALE if multi_scale else (1.0,)),
        flip=multi_scale if flip is None else flip,
        batch=batch_size,
    )
    counts = evaluate_pairs(segmenter, pairs, ranks)
    summary = counts.summary()
    folder = output or (checkpoint / "evaluation" if checkpoint.is_dir() else None)
    if ranks.first and folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_table(counts, pairs.classes.names, folder / "table.csv")
        draw_table(counts, pairs.classes.names, folder / "table.png")
        write_atomically(folder / "results.json", json.dumps(summary, indent=2))
    if ranks.first:
        print("  ".join(f"{name} {value:.4f}" for name, value in summary.items()))
    return summary


def predict(
    *,
    images: Path,
    checkpoint: Path,
    output: Path = Path("segmented"),
    multi_scale: bool = False,
    tile: int = 1024,
    device: Literal["auto", "cpu"] = "auto",
) -> None:
    """Give every pixel of your pictures a class: label images and colour overlays.

    tokenlabel segment predict --images photos --checkpoint runs/segment

    Args:
        images: a picture, or a folder of pictures.
        checkpoint: a run's folder; its best checkpoint is taken.
        output: labels/NAME.png (mask values as in the training data), overlays/NAME.png and
            legend.png with the colours of the classes.
        multi_scale: average over six scales and mirror images: slower, a little better.
        tile: pixels on a side that are made at once; less takes less memory, with the same result.
        device: auto takes a GPU where there is one.
    """
    from tokenlabel.pictures.colors import class_colors
    from tokenlabel.pictures.segmentation import overlay, save_legend, save_mask
    from tokenlabel.progress import progress_bar
    from tokenlabel.runs.recipe import Engine
    from tokenlabel.segmentation.files import read_image
    from tokenlabel.segmentation.pairs import find_images
    from tokenlabel.segmentation.run import load_segmenter
    from tokenlabel.training.ranks import Ranks

    own = output.resolve()  # what an earlier call wrote is no picture to segment
    found = [path for path in find_images(images) if own not in path.resolve().parents]
    trained = load_segmenter(checkpoint)
    segmenter = trained.segmenter(
        Ranks(Engine(device=device)).device,
        scales=_MULTI_SCALE if multi_scale else (1.0,),
        flip=multi_scale,
        tile=tile,
    )
    colors = class_colors(len(trained.classes), trained.classes.names)
    base = images if images.is_dir() else images.parent
    files = {path.relative_to(base).with_suffix(".png"): path for path in found}
    lost = sorted(set(found) - set(files.values()))
    if lost:
        raise InputError(f"{lost[0]} has a namesake of another suffix: rename one of them")
    with progress_bar() as bar:
        task = bar.add_task("segmenting", total=len(found), note="")
        for name, path in bar.track(files.items(), task_id=task):
            image = read_image(path)
            labels = segmenter(image)
            save_mask(trained.classes.encode(labels), output / "labels" / name)
            overlay(image, labels, colors, output / "overlays" / name)
    save_legend(trained.classes.names, colors, output / "legend.png")


def _recipe(recipe: str) -> SegmentationRecipe:
    """A recipe by name or file."""
    if recipe.endswith((".yaml", ".yml")):
        return read_recipe(recipe, SegmentationRecipe)
    from tokenlabel.recipes.segmentation import get_segmentation_recipe

    return get_segmentation_recipe(recipe)


def _start(weights: str | None) -> list[str]:
    """The weights to start from and, where their folder tells it, the backbone that they are of."""
    from tokenlabel.runs.open import open_run

    folder = Path(weights or "")
    if weights is not None and (folder / "recipe.yaml").is_file():
        try:
            student = open_run(folder).recipe.model
        except InputError as error:
            raise InputError(f"{folder} holds no run of `tokenlabel train`: {error}") from None
        name, arguments = student.name, student.kwargs
    elif weights is not None and (folder / "config.json").is_file():
        try:
            written = json.loads((folder / "config.json").read_text())
            name, arguments = written["architecture"], written.get("model_args", {})
        except (ValueError, KeyError):
            raise InputError(
                f"{folder / 'config.json'} names no timm model: give a folder of `tokenlabel train`"
                " or `tokenlabel export`, or a file of weights"
            ) from None
    else:
        return _given("model.weights", weights)
    kept = {key: value for key, value in arguments.items() if key not in _NOT_BACKBONE}
    return [
        *_given("model.weights", weights),
        *_given("model.backbone", name),
        *_given("model.kwargs", kept),
    ]


def _given(path: str, value: Any) -> list[str]:
    return [] if value is None else [f"{path}={json.dumps(value)}"]


def _window(window: int | None, stride: int | None, whole: bool) -> dict[str, int | None]:
    """Changes of the recipe's window."""
    if whole and (window, stride) != (None, None):
        raise InputError("--whole shows no windows: leave --window and --stride out, or --whole")
    if whole:
        return {"window": None}
    return {
        key: value for key, value in (("window", window), ("stride", stride)) if value is not None
    }
