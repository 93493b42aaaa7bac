"""`tl.segment.evaluate`: how well a segmentation model does on a data set with masks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack

from tokenlabel.api.segment.training import find_recipe
from tokenlabel.choices import Arithmetic, Device
from tokenlabel.errors import InputError
from tokenlabel.files import write_atomically
from tokenlabel.runs.evaluations import evaluation_folder
from tokenlabel.runs.recipe_file import override
from tokenlabel.segmentation.recipe import Layout, SegmentationRecipe

if TYPE_CHECKING:
    from tokenlabel.segmentation.metrics import SegmentationCounts
    from tokenlabel.segmentation.pairs import Pairs
    from tokenlabel.segmentation.trained import TrainedSegmenter

__all__ = ["How", "Measured", "SegmentEvaluation", "evaluate", "measure"]


@dataclass(frozen=True)
class SegmentEvaluation:
    """Measures of a segmentation model, fractions in [0, 1]."""

    miou: float
    """Mean over the classes that occur or are predicted, as it is published."""
    miou_all: float
    """Mean over all listed classes; those that never come up count as 0."""
    class_accuracy: float
    pixel_accuracy: float
    boundary_iou: float
    """As `miou`, of the pixels near the boundaries of classes (Cheng et al. 2021)."""
    intervals: dict[str, tuple[float, float]]
    """95 % confidence intervals of the means, over scenes (bootstrap)."""
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
        """The means."""
        return {name: getattr(self, name) for name in self.intervals}


class Measured(NamedTuple):
    """An evaluation with what it is made of."""

    result: SegmentEvaluation
    counts: SegmentationCounts
    pairs: Pairs


class How(TypedDict, total=False):
    """How a model is shown the images of an evaluation; see `evaluate`."""

    split: str
    window: int | None
    stride: int | None
    whole: bool
    scales: Sequence[float]
    flip: bool
    classes: str | Path | None
    ignore_index: int | None
    layout: Layout | None
    batch_size: int
    device: Device
    dtype: Arithmetic


def evaluate(
    *,
    data: str | Path,
    checkpoint: str | Path,
    recipe: str | SegmentationRecipe | None = None,
    output: str | Path | None = None,
    settings: Sequence[str] = (),
    **how: Unpack[How],
) -> SegmentEvaluation:
    """Measure a segmentation model on a split of a data set; every rank of a torchrun may call it.

    `checkpoint` is a run's folder, one of its checkpoints, or (with `recipe`) a file of weights. The
    first rank writes results.json, table.csv, table.png and scenes.csv to `output`, by default a
    folder of the run that is named by all that the numbers depend on. `classes`, `ignore_index` and
    `layout` are the recipe's where they are not given. Raises InputError, also where the classes or
    their mask values are not those that the run was trained on.
    """
    return measure(data, checkpoint, recipe, output, settings, **how).result


def measure(
    data: str | Path,
    checkpoint: str | Path,
    recipe: str | SegmentationRecipe | None = None,
    output: str | Path | None = None,
    settings: Sequence[str] = (),
    *,
    split: str = "validation",
    window: int | None = None,
    stride: int | None = None,
    whole: bool = False,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    classes: str | Path | None = None,
    ignore_index: int | None = None,
    layout: Layout | None = None,
    batch_size: int = 4,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
) -> Measured:
    """As `evaluate`, with the counts of every scene."""
    from tokenlabel.models.arithmetic import name_of
    from tokenlabel.pictures.segmentation import draw_class_table
    from tokenlabel.runs.recipe import Engine
    from tokenlabel.segmentation.account import account_of
    from tokenlabel.segmentation.bootstrap import intervals
    from tokenlabel.segmentation.evaluate import evaluate_pairs
    from tokenlabel.segmentation.metrics import write_scenes, write_table
    from tokenlabel.segmentation.pairs import open_pairs
    from tokenlabel.segmentation.trained import load_checkpoint, load_segmenter
    from tokenlabel.training.ranks import Ranks

    checkpoint, plan = Path(checkpoint), _window(window, stride, whole)
    trained: TrainedSegmenter | None = None
    if recipe is None:
        trained = load_segmenter(checkpoint, settings)
        chosen = trained.recipe
    else:
        chosen = override(find_recipe(recipe), settings)
    known = chosen.data
    class_file = known.classes if classes is None else classes
    pairs = open_pairs(
        Path(data),
        split,
        layout=known.layout if layout is None else layout,
        class_file=None if class_file is None else Path(class_file),
        ignore_index=known.ignore_index if ignore_index is None else ignore_index,
        orientation=known.orientation,
        in_chans=chosen.model.in_chans,
        channels=known.channels,
    )
    if trained is None:
        trained = load_checkpoint(checkpoint, chosen, pairs.classes)
    if trained.classes.names != pairs.classes.names:
        raise InputError(
            f"the model knows {len(trained.classes)} classes and {data} has {len(pairs.classes)},"
            " or others: measure it on the classes it was trained on"
        )
    if trained.classes != pairs.classes:
        raise InputError(
            f"the model was trained on masks in which {trained.classes.line()}, and in {data}"
            f" {pairs.classes.line()}: say with the ignore index what is unlabeled, as in the training"
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
    segmenter = segmenter.in_arithmetic(dtype, len(pairs))
    segmenter = dataclasses.replace(segmenter, dtype=ranks.gather(segmenter.dtype)[0])
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
        "images": pairs.fingerprint(),
    }
    if (arithmetic := name_of(segmenter.dtype)) != "float32":
        measured["dtype"] = arithmetic
    if adjustment := trained.model.logit_adjustment:
        measured["logit_adjustment"] = adjustment
    if output is None and trained.run is not None:
        output = evaluation_folder(trained.run, measured, unnamed=("images",))
    summary = counts.summary()
    result = SegmentEvaluation(
        **summary,
        intervals=intervals(counts),
        images=len(pairs),
        class_iou=_class_iou(counts, pairs.classes.names),
        absent=account.absent,
        notes=(
            f"{split}: {pairs.line()}",
            *account.lines(split, orientation_applied=pairs.rules.orientation == "apply"),
        ),
        measured=measured,
        folder=None if output is None else Path(output),
    )
    if ranks.first and result.folder is not None:
        result.folder.mkdir(parents=True, exist_ok=True)
        write_table(counts, pairs.classes.names, result.folder / "table.csv")
        write_scenes(counts, [pair.key for pair in pairs.items], result.folder / "scenes.csv")
        draw_class_table(
            pairs.classes.names,
            counts.class_iou().tolist(),
            counts.class_accuracy().tolist(),
            f"mean IoU {result.miou:.4f}",
            result.folder / "table.png",
        )
        written = dataclasses.asdict(result) | {"folder": None, "classes": len(pairs.classes)}
        write_atomically(result.folder / "results.json", json.dumps(written, indent=2))
    return Measured(result, counts, pairs)


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


def _class_iou(counts: SegmentationCounts, names: Sequence[str]) -> dict[str, float]:
    measured = zip(names, counts.class_iou().tolist(), strict=True)
    return {name: iou for name, iou in measured if iou == iou}  # not where it never comes up
