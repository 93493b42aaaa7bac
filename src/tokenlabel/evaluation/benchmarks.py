"""What counts as right on a set of test images: ImageNet's benchmarks, or any folder of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import torch
from timm.data import RealLabelsImagenet
from torch import Tensor

from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError, nearest

__all__ = ["Answers", "Benchmark", "answers"]

Benchmark = Literal[
    "folder",
    "imagenet",
    "imagenet-real",
    "imagenet-v2",
    "imagenet-a",
    "imagenet-r",
    "imagenet-sketch",
]

_IMAGENET = 1000
_VAL_IMAGES = 50_000
_SUBSETS: dict[str, int] = {"imagenet-a": 200, "imagenet-r": 200}  # classes a prediction may be of


@dataclass(frozen=True)
class Answers:
    """The right answers of a source, in a model's classes."""

    accepted: (
        Tensor  # [N, M] int64: class ids right for each image, padded with -1; none: not judged
    )
    candidates: Tensor | None  # [K] int64: the only classes that predictions are chosen from

    def restrict(self, scores: Tensor) -> Tensor:
        """Scores [B, C] with every class that is no candidate out of the running."""
        if self.candidates is None:
            return scores
        kept = torch.full_like(scores, float("-inf"))
        kept[:, self.candidates] = scores[:, self.candidates]
        return kept


def answers(
    source: ImageSource,
    class_names: Sequence[str],
    benchmark: Benchmark = "folder",
    real_labels: Path | None = None,
) -> Answers:
    """The right answers of a source to a model that names its classes `class_names`.

    - "folder", "imagenet", "imagenet-sketch": the folder's class, found among the model's by its
      name; numbered folders by their number, as in ImageNet-V2; others in order, if there are as
      many as the model has.
    - "imagenet-v2": folders numbered 0 to 999.
    - "imagenet-a", "imagenet-r": the same among the folder's 200 classes only.
    - "imagenet-real": the reassessed labels of ImageNet's validation images, found by their file
      names ("ILSVRC2012_val_00000001.JPEG"). An image may have several or none, and is then not
      judged. `real_labels` is their file, real.json; None takes timm's copy.

    Raises InputError where images and model do not go together.
    """
    if benchmark != "folder" and len(class_names) != _IMAGENET:
        raise InputError(
            f"{benchmark} needs a model of ImageNet's {_IMAGENET} classes, this one has"
            f" {len(class_names)}: leave --benchmark out"
        )
    if benchmark == "imagenet-real":
        return Answers(_reassessed(source.keys, real_labels), None)
    ids = torch.tensor(_match(source.class_names, class_names, numbered=benchmark == "imagenet-v2"))
    accepted = ids[torch.tensor(source.labels, dtype=torch.int64)][:, None]
    if benchmark not in _SUBSETS:
        return Answers(accepted, None)
    if len(ids) > _SUBSETS[benchmark]:
        raise InputError(
            f"{benchmark} has {_SUBSETS[benchmark]} classes, this folder {len(ids)}:"
            " give its own folder"
        )
    return Answers(accepted, ids)


def _match(folders: Sequence[str], class_names: Sequence[str], *, numbered: bool) -> list[int]:
    """The model's class of each of a source's classes."""
    known = {name: i for i, name in enumerate(class_names)}
    strangers = [name for name in folders if name not in known]
    if not numbered and not strangers:
        return [known[name] for name in folders]
    if all(name.isdecimal() and int(name) < len(class_names) for name in folders):
        return [int(name) for name in folders]
    # names that are partly known are a mistake; wholly other ones may be another naming
    if not numbered and len(strangers) == len(folders) == len(class_names):
        return list(range(len(class_names)))
    stranger = strangers[0] if strangers else folders[0]
    raise InputError(
        f"the images have a class {stranger!r} that the model does not know"
        f"{nearest(stranger, class_names)}: it knows {len(class_names)} classes,"
        f" {', '.join(map(repr, class_names[:4]))} …"
    )


def _reassessed(keys: Sequence[str], file: Path | None) -> Tensor:
    if file is not None and not file.is_file():
        raise InputError(f"no labels at {file}: real.json comes from the authors of ReaL")
    blank = [""] * _VAL_IMAGES
    table: dict[str, list[int]] = RealLabelsImagenet(blank, file).real_labels
    rows = []
    for key in keys:
        name = PurePosixPath(key).with_suffix(".JPEG").name
        if name not in table:
            raise InputError(
                f"{key} is not one of ImageNet's validation images, which are named"
                " ILSVRC2012_val_00000001.JPEG and so on"
            )
        rows.append(torch.tensor(table[name], dtype=torch.int64))
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
