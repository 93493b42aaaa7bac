"""`health`: do these labels fit this data set? Numbers, and a warning where a student would suffer."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tokenlabel.errors import InputError
from tokenlabel.labels.label_map import LabelMap
from tokenlabel.labels.store import LabelStore

__all__ = [
    "Health",
    "Pixels",
    "better_turn",
    "check_health",
    "mean_entropy",
    "orientation_fits",
    "orientation_warning",
    "sampled",
    "sharing_warning",
]

Pixels = NDArray[np.uint8]  # [H, W, 3]

# on 1,000 images a class students learned 1 to 2 points less from an annotator with a gap of 0.171 than
# from one with 0.132 (docs/proof.md); with 0.081 to 0.088 (5,000 a class) it says nothing of the labels
_COSTLY_GAP = 0.15

# standard errors of the mean gap between two orientations. The best of four others is compared, and
# labels that follow nothing pass 4 errors once in thousands of checks; 2 errors once in ten
_NOISE = 4.0
_FEWEST = 8  # images, below which a standard error says little

_TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "as stored": lambda planes: planes,
    "mirrored": lambda planes: planes.flip(-1),
    "upside down": lambda planes: planes.flip(-2),
    "turned by 180 degrees": lambda planes: planes.flip(-1, -2),
    "x and y exchanged": lambda planes: planes.mT,
}


@dataclass(frozen=True)
class Health:
    """Statistics over a sample of images; all shares in [0, 1]."""

    images: int
    agreement: list[float]  # per image, 1 where the best class of the whole map is the true one
    true_class_cells: list[float]  # per image, share of cells that name the true class
    top_k_mass: list[float]  # per image, mean probability inside the K classes
    entropy: list[float]  # per image, mean entropy of its cells, as a share of the largest possible
    never_named: list[str]  # of the sample's true classes, those that are nowhere a cell's best
    met: int  # different true classes in the sample
    orientation: dict[str, float]  # how well label borders follow image colors, per orientation
    better_turn: str | None  # an orientation in which they follow them better by more than noise
    num_classes: int
    held_out: float | None = None  # the annotator's top-1 on images that it was not taught on
    in_folds: bool = False  # whether every image was labeled by a network that had not seen it

    @property
    def memorization_gap(self) -> float | None:
        """Agreement on the images that it labels minus accuracy on those it never saw."""
        return None if self.held_out is None else self.means["agreement"] - self.held_out

    @property
    def advice(self) -> list[str]:
        """In words, what may be tried with other labels."""
        gap = self.memorization_gap
        if gap is None or self.in_folds or gap < _COSTLY_GAP:
            return []
        return [
            f"The annotator has memorized these images: it agrees with {self.means['agreement']:.0%} of"
            f" their classes and names {self.held_out:.0%} of unseen ones, a gap of {100 * gap:.0f}"
            " points. Try half as many epochs, and compare: on 10 000 images students then learned 1 to"
            " 2 points more. Networks that did not see the image (`tokenlabel teach --folds 5`) have no"
            " gap, but they are less accurate: of few images students learned no better from them, or up"
            " to 9 points worse."
        ]

    @property
    def means(self) -> dict[str, float]:
        names = ("agreement", "true_class_cells", "top_k_mass", "entropy")
        return {name: float(np.mean(getattr(self, name))) for name in names}

    def as_dict(self) -> dict[str, Any]:
        return {
            "means": self.means,
            "memorization_gap": self.memorization_gap,
            "warnings": self.warnings,
            "advice": self.advice,
            **asdict(self),
        }

    @property
    def warnings(self) -> list[str]:
        """In words, what would teach a student nonsense."""
        means, said = self.means, []
        chance = 1 / self.num_classes
        if means["agreement"] < chance + 0.2 * (1 - chance):
            said.append(
                f"The labels agree with only {means['agreement']:.0%} of the true classes: class"
                " order or data set do not match, or the annotator does not know these images."
                " Do not train with these labels."
            )
        elif means["agreement"] < 0.5:
            said.append(
                f"The annotator is right on only {means['agreement']:.0%} of the images: a student"
                " will learn its mistakes. Teach it on these images first."
            )
        if means["true_class_cells"] < 0.1 <= means["agreement"]:
            said.append(
                "Few cells name the true class: a larger top-k or other annotator may help."
            )
        said += sharing_warning(means["top_k_mass"])
        if means["entropy"] > 0.9:
            said.append("The cells say almost nothing: their classes are nearly equally likely.")
        if self.met > 1 and len(self.never_named) > self.met / 2:
            said.append(
                f"{len(self.never_named)} of the {self.met} classes of these images are never a"
                f" cell's best, {self.never_named[0]!r} for one."
            )
        return said + orientation_warning(self.better_turn)


def check_health(
    store: LabelStore,
    truth: dict[str, int],
    class_names: Sequence[str],
    pixels: Callable[[str], Pixels] | None = None,
    *,
    sample: int = 1000,
) -> Health:
    """Statistics of the labels of `truth` (key to true class), or of a random sample of them.

    With `pixels` (the image of a key) the orientation is checked too, without any model: cells of
    one best class should look alike, and do so best in the right orientation.
    """
    named_in_store = store.manifest.class_names
    if named_in_store is not None and named_in_store != tuple(class_names):
        raise InputError(
            f"{store.location} labels {len(named_in_store)} classes, {named_in_store[0]!r} first;"
            f" the data set has {len(class_names)}, {class_names[0]!r} first: it belongs to another one"
        )
    if named_in_store is None and store.num_classes != len(class_names):
        raise InputError(
            f"{store.location} labels {store.num_classes} classes, the data set has"
            f" {len(class_names)}: it belongs to another one"
        )
    keys = [key for key, label in truth.items() if label >= 0 and key in store]
    if not keys:
        raise InputError(
            f"{store.location} has no label of any of the {len(truth)} images: it belongs to another"
            " data set, or was made from another folder level"
        )
    keys = sampled(store, keys, sample)
    agreement, cells, mass, entropy = [], [], [], []
    named: set[int] = set()
    fits: dict[str, list[float]] = {name: [] for name in _TURNS}
    for key in keys:
        label = store[key]
        probability = label.probabilities()
        agreement.append(float(_whole_map_class(label, probability) == truth[key]))
        cells.append(float((label.classes == truth[key]).any(0).float().mean()))
        mass.append(float(probability.sum(0).clamp(max=1).mean()))
        most = max(math.log(label.num_classes), 1e-12)
        entropy.append(mean_entropy(probability, label.num_classes) / most)
        named.update(torch.unique(label.classes[0]).tolist())
        if pixels is not None:
            for name, fit in orientation_fits(label, pixels(key)).items():
                fits[name].append(fit)
    met = sorted({truth[key] for key in keys})
    made_by = store.manifest.annotator
    unseen = made_by.get("held_out")
    never = [class_names[c] for c in met if c not in named]
    orientation = {name: float(np.mean(values)) for name, values in fits.items() if values}
    return Health(
        images=len(keys),
        agreement=agreement,
        true_class_cells=cells,
        top_k_mass=mass,
        entropy=entropy,
        never_named=never,
        met=len(met),
        orientation=orientation,
        better_turn=better_turn(fits),
        num_classes=store.num_classes,
        held_out=unseen.get("top1") if isinstance(unseen, dict) else None,
        in_folds=made_by.get("kind") == "folds" and not made_by.get("unseen_images"),
    )


def sampled(store: LabelStore, keys: Sequence[str], count: int) -> list[str]:
    """Those of the keys that have a label, or so many of them drawn at random."""
    known = [key for key in keys if key in store]
    return known if len(known) <= count else random.Random(0).sample(known, count)


def sharing_warning(top_k_mass: float) -> list[str]:
    """What to say where the stored classes hold little of the probability."""
    if top_k_mass >= 0.5:
        return []
    return [
        f"The stored classes hold {top_k_mass:.0%} of the probability: the rest is"
        " spread evenly over all classes. Raise top-k."
    ]


def better_turn(fits: Mapping[str, Sequence[float]]) -> str | None:
    """The orientation in which labels fit their images better than as they are stored, if any.

    `fits` holds for each orientation a number for each image, as of `orientation_fits`. Beside a mean
    that is a tenth higher, the gap must be more than noise: several standard errors over the images.
    """
    means = {name: float(np.mean(values)) for name, values in fits.items() if len(values)}
    best = max(means, key=means.__getitem__, default="as stored")
    if best == "as stored" or means[best] <= 1.1 * means["as stored"]:
        return None
    gaps = np.subtract(fits[best], fits["as stored"])
    if len(gaps) < _FEWEST:
        return None
    error = float(gaps.std(ddof=1)) / math.sqrt(len(gaps))
    return best if float(gaps.mean()) > _NOISE * error else None


def orientation_warning(turn: str | None) -> list[str]:
    """What to say where labels fit the images better in another orientation (see `better_turn`)."""
    if turn is None:
        return []
    return [
        f"The labels fit the images better when {turn}: they were made or imported in"
        " another orientation. Do not train with these labels."
    ]


def _whole_map_class(label: LabelMap, probability: Tensor) -> int:
    classes, slots = torch.unique(label.classes, return_inverse=True)
    mass = torch.zeros(len(classes)).scatter_add_(0, slots.flatten(), probability.flatten())
    return int(classes[mass.argmax()])


def mean_entropy(probability: Tensor, num_classes: int) -> float:
    """Mean over cells, in nats, of probabilities [K, H, W]; the mass outside the K classes counts as
    spread evenly over the others."""
    outside = num_classes - len(probability)
    named = -(probability * probability.clamp(min=1e-12).log()).sum(0)
    rest = (1 - probability.sum(0)).clamp(min=0)
    unnamed = -rest * (rest.clamp(min=1e-12) / max(outside, 1)).log() if outside else 0.0
    return float((named + unnamed).mean())


def orientation_fits(label: LabelMap, pixels: Pixels) -> dict[str, float]:
    """Share of the image's color variance between cells that their best class explains."""
    rows, cols = pixels.shape[:2]
    box = label.extent
    top, bottom = max(round(box.y0 * rows), 0), round(box.y1 * rows)
    left, right = max(round(box.x0 * cols), 0), round(box.x1 * cols)
    image = torch.from_numpy(pixels[top:bottom, left:right].copy()).permute(2, 0, 1).float()
    fits = {}
    for name, turn in _TURNS.items():
        classes = turn(label.classes[0])
        colors = F.interpolate(image[None], classes.shape, mode="area")[0].flatten(1)  # [3, cells]
        fits[name] = _explained_variance(colors, classes.flatten())
    return fits


def _explained_variance(values: Tensor, groups: Tensor) -> float:
    values = values - values.mean(1, keepdim=True)
    _, slots, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(values), len(counts)).index_add_(1, slots, values)
    return float((sums**2 / counts).sum() / (values**2).sum().clamp(min=1e-6))
