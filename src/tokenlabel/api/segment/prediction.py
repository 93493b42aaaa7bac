"""`tl.segment.predict`: the class of every pixel of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokenlabel.api.segment.training import find_recipe
from tokenlabel.choices import Arithmetic, Device
from tokenlabel.errors import InputError

if TYPE_CHECKING:
    from tokenlabel.segmentation.recipe import SegmentationRecipe
    from tokenlabel.segmentation.trained import TrainedSegmenter

__all__ = ["Segmented", "predict"]


@dataclass(frozen=True)
class Segmented:
    """What `predict` has written."""

    folder: Path
    images: int
    masks: int  # files beside images that are their masks, which are left out
    oriented: int  # images with an EXIF orientation other than upright


def predict(
    *,
    images: str | Path,
    checkpoint: str | Path,
    recipe: str | SegmentationRecipe | None = None,
    classes: str | Path | None = None,
    ignore_index: int | None = None,
    output: str | Path = "segmented",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    tile: int = 1024,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
) -> Segmented:
    """Write the class of every pixel of pictures: labels/NAME.png, overlays/NAME.png, legend.png.

    `checkpoint` is a run's folder or, with `recipe`, a file of weights, whose `classes` are those of a
    class list (by default the one that lies beside it) with the mask value `ignore_index` for none
    (by default that of the recipe, or of the recipe's layout).
    Pictures are read as those the model was trained on were: with their range of values and their
    orientation; masks that lie beside them, as training takes them, are left out. Raises InputError.
    """
    from tokenlabel.data.survey import survey
    from tokenlabel.pictures.colors import class_colors
    from tokenlabel.pictures.segmentation import overlay, save_legend, save_mask
    from tokenlabel.progress import progress_bar
    from tokenlabel.runs.recipe import Engine
    from tokenlabel.segmentation.files import read_image, without_masks
    from tokenlabel.segmentation.pairs import find_images
    from tokenlabel.segmentation.trained import load_segmenter
    from tokenlabel.training.ranks import Ranks

    images, output = Path(images), Path(output)
    # what an earlier call wrote is not a picture to segment
    own = {output.resolve() / name for name in ("labels", "overlays", "legend.png")}
    listed = find_images(images)
    foreign = [path for path in listed if not own & {path.resolve(), *path.resolve().parents}]
    found = without_masks(foreign)
    if not found:
        raise InputError(
            f"all {len(listed)} images in {images} lie where {output} has its results: choose another"
            " output folder"
        )
    if recipe is None:
        trained = load_segmenter(Path(checkpoint))
    else:
        trained = _of_file(Path(checkpoint), find_recipe(recipe), classes, ignore_index)
    segmenter = trained.segmenter(
        Ranks(Engine(device=device)).device, scales=tuple(scales), flip=flip, tile=tile
    ).in_arithmetic(dtype, len(found))
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
    return Segmented(output, len(found), len(foreign) - len(found), seen.oriented)


def _of_file(
    weights: Path, recipe: SegmentationRecipe, classes: str | Path | None, ignore_index: int | None
) -> TrainedSegmenter:
    """The model of a file of weights, with the classes of a list."""
    from tokenlabel.data.class_list import read_class_names
    from tokenlabel.segmentation.classes import ClassList
    from tokenlabel.segmentation.pairs import unlabeled_value
    from tokenlabel.segmentation.trained import load_checkpoint

    names = read_class_names(weights.parent if classes is None else Path(classes))
    layout = recipe.data.layout
    if ignore_index is None:
        ignore_index = recipe.data.ignore_index
    if ignore_index is None and layout is not None:
        ignore_index = unlabeled_value(layout)
    if ignore_index is None:
        raise InputError(
            f"nothing says which mask values the classes of {weights} have: give --ignore-index 0 for"
            " masks whose classes begin at 1 (ADE20K), or 255 where they begin at 0"
        )
    return load_checkpoint(weights, recipe, ClassList.counted(names, ignore_index))
