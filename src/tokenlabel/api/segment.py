"""`tl.segment`: networks that give every pixel a class, trained, measured and used."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from tokenlabel.errors import InputError
from tokenlabel.files import write_atomically
from tokenlabel.runs.evaluations import evaluation_folder
from tokenlabel.runs.recipe_file import override, read_recipe
from tokenlabel.runs.results import TrainResult
from tokenlabel.segmentation.recipe import HeadKind, Layout, SegmentationRecipe
from tokenlabel.text import read_json

if TYPE_CHECKING:
    from tokenlabel.segmentation.metrics import SegmentationCounts
    from tokenlabel.segmentation.pairs import Pairs
    from tokenlabel.segmentation.run import TrainedSegmenter
    from tokenlabel.training.callbacks import Callback

__all__ = [
    "MULTI_SCALE",
    "Choices",
    "SegmentEvaluation",
    "Segmented",
    "compose_recipe",
    "evaluate",
    "predict",
    "train",
]

MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""The scales of published multi-scale results; each is mirrored too."""

_NOT_BACKBONE = ("img_size", "num_classes", "global_pool", "heads")  # a student's, gone from here


class Choices(TypedDict, total=False):
    """What a training takes in place of its recipe's values; None leaves these."""

    recipe: str | SegmentationRecipe  # a name, a YAML file or the recipe itself
    data: str | Path | None
    backbone: str | None
    weights: str | None
    head: HeadKind | None
    classes: str | Path | None
    ignore_index: int | None
    layout: Layout | None
    updates: int | None
    batch_size: int | None
    seed: int | None
    workers: int | None
    settings: Sequence[str]  # any other values, as "section.key=value"


@dataclass(frozen=True)
class SegmentEvaluation:
    """Measures of a segmentation model, fractions in [0, 1]."""

    miou: float
    """Mean over the classes that occur or are predicted, as it is published."""
    miou_all: float
    """Mean over all listed classes; those that never come up count as 0."""
    class_accuracy: float
    pixel_accuracy: float
    images: int
    class_iou: dict[str, float]
    """Of the classes that occur or are predicted."""
    absent: tuple[str, ...]
    """Classes that occur in no mask."""
    notes: tuple[str, ...]
    """What to know of the masks, a line each."""
    measured: dict[str, object]
    """On which weights, data, scales ... all this depends."""
    folder: Path | None
    """Where the results, the table and its picture are."""

    def summary(self) -> dict[str, float]:
        """The four means."""
        names = ("miou", "miou_all", "class_accuracy", "pixel_accuracy")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Segmented:
    """What `predict` has written."""

    folder: Path
    images: int
    oriented: int  # images with an EXIF orientation other than upright


def compose_recipe(**choices: Unpack[Choices]) -> SegmentationRecipe:
    """The recipe of a training with all that was chosen. Raises InputError for what does not fit."""
    given = {
        "data.root": _text(choices.get("data")),
        "data.classes": _text(choices.get("classes")),
        "data.ignore_index": choices.get("ignore_index"),
        "data.layout": choices.get("layout"),
        "data.workers": choices.get("workers"),
        "model.backbone": choices.get("backbone"),
        "model.head": choices.get("head"),
        "schedule.updates": choices.get("updates"),
        "schedule.batch_size": choices.get("batch_size"),
        "seed": choices.get("seed"),
    }
    changes = _start(choices.get("weights"))
    changes |= {name: value for name, value in given.items() if value is not None}
    texts = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
    base = _recipe(choices.get("recipe", "lvvit_s_upernet_ade20k"))
    return override(base, [*texts, *choices.get("settings", ())])


def train(
    *,
    output: str | Path = "runs/segment",
    allow_changed: Iterable[str] = (),
    callbacks: Iterable[Callback] = (),
    **choices: Unpack[Choices],
) -> TrainResult:
    """Train a segmentation network in the folder `output`; a run that is there already goes on.

    See `tokenlabel segment train --help` for the choices; `allow_changed` and `callbacks` are those of
    `tokenlabel.training.engine.fit`. Raises InputError for what the user can fix.
    """
    recipe = compose_recipe(**choices)
    from tokenlabel.segmentation import run

    return run.train(recipe, output, callbacks=callbacks, allow_changed=allow_changed)


def evaluate(
    *,
    data: str | Path,
    checkpoint: str | Path,
    recipe: str | SegmentationRecipe | None = None,
    split: str = "validation",
    output: str | Path | None = None,
    window: int | None = None,
    stride: int | None = None,
    whole: bool = False,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    classes: str | Path | None = None,
    ignore_index: int | None = None,
    layout: Layout | None = None,
    settings: Sequence[str] = (),
    batch_size: int = 4,
    device: Literal["auto", "cpu"] = "auto",
) -> SegmentEvaluation:
    """Measure a segmentation model on a split of a data set; every rank of a torchrun may call it.

    `checkpoint` is a run's folder, one of its checkpoints, or (with `recipe`) a file of weights. The
    first rank writes results.json, table.csv and table.png to `output`, by default a folder of the
    run that is named by all that the numbers depend on. Raises InputError.
    """
    from tokenlabel.pictures.segmentation import draw_class_table
    from tokenlabel.runs.recipe import Engine
    from tokenlabel.segmentation.account import account_of
    from tokenlabel.segmentation.evaluate import evaluate_pairs
    from tokenlabel.segmentation.metrics import write_table
    from tokenlabel.segmentation.pairs import open_pairs
    from tokenlabel.segmentation.run import load_checkpoint, load_segmenter
    from tokenlabel.training.ranks import Ranks

    checkpoint, plan = Path(checkpoint), _window(window, stride, whole)
    trained: TrainedSegmenter | None = None
    if recipe is None:
        trained = load_segmenter(checkpoint, settings)
        chosen = trained.recipe
    else:
        chosen = override(_recipe(recipe), settings)
    pairs = open_pairs(
        Path(data),
        split,
        layout=layout,
        class_file=None if classes is None else Path(classes),
        ignore_index=ignore_index,
        orientation=chosen.data.orientation,
    )
    if trained is None:
        trained = load_checkpoint(checkpoint, chosen, pairs.classes)
    if trained.classes.names != pairs.classes.names:
        raise InputError(
            f"the model knows {len(trained.classes)} classes and {data} has {len(pairs.classes)},"
            " or others: measure it on the classes it was trained on"
        )
    pairs = dataclasses.replace(pairs, rules=trained.rules.filled(pairs.rules))
    ranks = Ranks(Engine(device=device))
    account = account_of(pairs, show=ranks.first)
    if not int(account.pixels.sum()):
        raise InputError(
            f"no pixel of {len(pairs)} masks in {data} has a class: check the class list, and with the"
            " ignore index what is unlabeled"
        )
    segmenter = trained.segmenter(
        ranks.device, **plan, scales=tuple(scales), flip=flip, batch=batch_size
    )
    counts = evaluate_pairs(segmenter, pairs, ranks)
    shown = segmenter.inference
    measured: dict[str, object] = {
        "weights": _name_of(trained.weights),
        "data": Path(data).resolve().name,
        "split": split,
        "short_side": shown.short_side,
        "window": "whole" if shown.window is None else (shown.window, shown.stride),
        "scales": tuple(shown.scales),
        "flip": "flip" if shown.flip else None,
        "orientation": None if pairs.rules.orientation == "ignore" else "oriented",
        "images": _fingerprint(pairs),
    }
    if output is None and trained.run is not None:
        output = evaluation_folder(trained.run, measured, unnamed=("images",))
    summary = counts.summary()
    result = SegmentEvaluation(
        **summary,
        images=len(pairs),
        class_iou=_class_iou(counts, pairs.classes.names),
        absent=account.absent,
        notes=tuple(account.lines(split, orientation_applied=pairs.rules.orientation == "apply")),
        measured=measured,
        folder=None if output is None else Path(output),
    )
    if ranks.first and result.folder is not None:
        result.folder.mkdir(parents=True, exist_ok=True)
        write_table(counts, pairs.classes.names, result.folder / "table.csv")
        draw_class_table(
            pairs.classes.names,
            counts.class_iou().nan_to_num().tolist(),
            counts.class_accuracy().nan_to_num().tolist(),
            f"mean IoU {result.miou:.4f}",
            result.folder / "table.png",
        )
        written = dataclasses.asdict(result) | {"folder": None, "classes": len(pairs.classes)}
        write_atomically(result.folder / "results.json", json.dumps(written, indent=2))
    return result


def predict(
    *,
    images: str | Path,
    checkpoint: str | Path,
    output: str | Path = "segmented",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    tile: int = 1024,
    device: Literal["auto", "cpu"] = "auto",
) -> Segmented:
    """Write the class of every pixel of pictures: labels/NAME.png, overlays/NAME.png, legend.png.

    Pictures are read as those the model was trained on were: with their range of values and their
    orientation. Raises InputError.
    """
    from tokenlabel.data.survey import survey
    from tokenlabel.pictures.colors import class_colors
    from tokenlabel.pictures.segmentation import overlay, save_legend, save_mask
    from tokenlabel.progress import progress_bar
    from tokenlabel.runs.recipe import Engine
    from tokenlabel.segmentation.files import read_image
    from tokenlabel.segmentation.pairs import find_images
    from tokenlabel.segmentation.run import load_segmenter
    from tokenlabel.training.ranks import Ranks

    images, output = Path(images), Path(output)
    own = output.resolve()  # what an earlier call wrote is no picture to segment
    found = [path for path in find_images(images) if own not in path.resolve().parents]
    trained = load_segmenter(Path(checkpoint))
    segmenter = trained.segmenter(
        Ranks(Engine(device=device)).device, scales=tuple(scales), flip=flip, tile=tile
    )
    colors = class_colors(len(trained.classes), trained.classes.names)
    base = images if images.is_dir() else images.parent
    files = {path.relative_to(base).with_suffix(".png"): path for path in found}
    lost = sorted(set(found) - set(files.values()))
    if lost:
        raise InputError(
            f"{lost[0]} and another image differ in their suffix only: rename one of them"
        )
    seen = survey((str(path), path.read_bytes) for path in found)
    rules = trained.rules.filled(seen.rules(trained.recipe.data.orientation))
    with progress_bar() as bar:
        task = bar.add_task("segmenting", total=len(found), note="")
        for name, path in bar.track(files.items(), task_id=task):
            image = read_image(path, rules)
            labels = segmenter(image)
            save_mask(trained.classes.encode(labels), output / "labels" / name)
            overlay(image, labels, colors, output / "overlays" / name)
    save_legend(trained.classes.names, colors, output / "legend.png")
    return Segmented(output, len(found), seen.oriented)


def _recipe(recipe: str | SegmentationRecipe) -> SegmentationRecipe:
    """A recipe by name or file, or itself."""
    if isinstance(recipe, SegmentationRecipe):
        return recipe
    if recipe.endswith((".yaml", ".yml")):
        return read_recipe(recipe, SegmentationRecipe)
    from tokenlabel.recipes.segmentation import get_segmentation_recipe

    return get_segmentation_recipe(recipe)


def _start(weights: str | None) -> dict[str, Any]:
    """The weights to start from and, where their folder names it, the backbone that they are of."""
    from tokenlabel.runs.open import holds_run, open_run

    if weights is None:
        return {}
    folder = Path(weights)
    if holds_run(folder):
        try:
            student = open_run(folder).recipe.model
        except InputError as error:
            raise InputError(f"{folder} holds no run of `tokenlabel train`: {error}") from None
        name, arguments = student.name, student.kwargs
    elif (folder / "config.json").is_file():
        written = read_json(folder / "config.json", kind=dict)
        name, arguments = written.get("architecture"), written.get("model_args", {})
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise InputError(
                f"{folder / 'config.json'} names no timm model: give a folder of `tokenlabel train`"
                " or `tokenlabel export`, or a file of weights"
            )
    else:
        return {"model.weights": weights}
    kept = {key: value for key, value in arguments.items() if key not in _NOT_BACKBONE}
    return {"model.weights": weights, "model.backbone": name, "model.kwargs": kept}


def _window(window: int | None, stride: int | None, whole: bool) -> dict[str, int | None]:
    """Changes of the recipe's window."""
    if whole and (window, stride) != (None, None):
        raise InputError("--whole shows no windows: leave --window and --stride out, or --whole")
    if whole:
        return {"window": None}
    return {
        key: value for key, value in (("window", window), ("stride", stride)) if value is not None
    }


def _name_of(weights: Path) -> str:
    """A file of weights by name; one of a run's by its checkpoint too."""
    in_run = weights.parent.name.startswith("step-")
    return f"{weights.parent.name}-{weights.stem}" if in_run else weights.stem


def _fingerprint(pairs: Pairs) -> str:
    """sha256 (hex) of keys and class names: tells data sets of one name apart."""
    names = "\0".join((*pairs.classes.names, "", *(pair.key for pair in pairs.items)))
    return hashlib.sha256(names.encode()).hexdigest()


def _class_iou(counts: SegmentationCounts, names: Sequence[str]) -> dict[str, float]:
    measured = zip(names, counts.class_iou().tolist(), strict=True)
    return {name: iou for name, iou in measured if iou == iou}  # not where it never comes up


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
