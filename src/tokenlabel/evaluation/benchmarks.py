"""What counts as right on a set of test images: ImageNet's benchmarks, or any folder of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch
from timm.data import RealLabelsImagenet
from torch import Tensor

from tokenlabel.choices import Benchmark
from tokenlabel.data.samples import class_labels
from tokenlabel.data.source import UNLABELED, ImageSource
from tokenlabel.errors import InputError, nearest

__all__ = ["Answers", "answers"]

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
    left_out: Mapping[str, int] = field(default_factory=dict)  # reason -> images not judged for it
    notes: tuple[str, ...] = ()  # what a reader of the numbers should know

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
        found = _reassessed(source.keys, real_labels)
        return Answers(found, None, _unjudged(found, "without a reassessed label"))
    matched, notes = _match(source.class_names, class_names, numbered=benchmark == "imagenet-v2")
    ids, labels = torch.tensor(matched), class_labels(source, range(len(source))).long()
    accepted = torch.where(labels == UNLABELED, -1, ids[labels.clamp(min=0)])
    accepted = accepted.reshape(len(source), -1)
    left_out = _unjudged(accepted, "without a class")
    if benchmark not in _SUBSETS:
        return Answers(accepted, None, left_out, notes)
    if len(ids) > _SUBSETS[benchmark]:
        raise InputError(
            f"{benchmark} has {_SUBSETS[benchmark]} classes, this folder {len(ids)}:"
            " give its own folder"
        )
    return Answers(accepted, ids, left_out, notes)


def _unjudged(accepted: Tensor, reason: str) -> dict[str, int]:
    count = int((accepted < 0).all(1).sum())
    return {reason: count} if count else {}


def _match(
    folders: Sequence[str], class_names: Sequence[str], *, numbered: bool
) -> tuple[list[int], tuple[str, ...]]:
    """The model's class of each of a source's classes, and what is to be said of it."""
    known = {name: i for i, name in enumerate(class_names)}
    unknown = [name for name in folders if name not in known]
    if not numbered and not unknown:
        return [known[name] for name in folders], ()
    if all(name.isdecimal() and int(name) < len(class_names) for name in folders):
        return [int(name) for name in folders], ()
    # names that are partly known are a mistake; wholly other ones may be another naming
    if not numbered and len(unknown) == len(folders) == len(class_names):
        note = (
            "no class of the images has a name of the model's: matched in order,"
            f" {folders[0]!r} as {class_names[0]!r} ... {folders[-1]!r} as {class_names[-1]!r}"
        )
        return list(range(len(class_names))), (note,)
    first = unknown[0] if unknown else folders[0]
    raise InputError(
        f"the images have a class {first!r} that the model does not know"
        f"{nearest(first, class_names)}: it knows {len(class_names)} classes,"
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
