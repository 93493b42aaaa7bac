"""`tl.segment.predict`: the class of every pixel of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenlabel.choices import Arithmetic, Device
from tokenlabel.errors import InputError

__all__ = ["Segmented", "predict"]


@dataclass(frozen=True)
class Segmented:
    """What `predict` has written."""

    folder: Path
    images: int
    oriented: int  # images with an EXIF orientation other than upright


def predict(
    *,
    images: str | Path,
    checkpoint: str | Path,
    output: str | Path = "segmented",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    tile: int = 1024,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
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
    from tokenlabel.segmentation.trained import load_segmenter
    from tokenlabel.training.ranks import Ranks

    images, output = Path(images), Path(output)
    own = output.resolve()  # what an earlier call wrote is no picture to segment
    found = [path for path in find_images(images) if own not in path.resolve().parents]
    trained = load_segmenter(Path(checkpoint))
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
    return Segmented(output, len(found), seen.oriented)
