"""`WordHealth`: do these visual words tell anything apart? Numbers, and a warning where not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from tokenlabel.errors import InputError
from tokenlabel.labels.health import (
    Pixels,
    better_turn,
    orientation_fits,
    orientation_warning,
    sampled,
    sharing_warning,
)
from tokenlabel.labels.store import LabelStore

__all__ = ["WordHealth", "check_words"]

_CELLS_A_WORD = 5  # below which a word that was not seen may still be alive
_OVERFULL = 0.2  # of all cells: a word that says hardly anything


@dataclass(frozen=True)
class WordHealth:
    """Statistics of the words over a sample of images; shares in [0, 1]."""

    images: int
    cells: int
    words: int
    shares: list[float]  # of all cells, those whose best word is this one
    perplexity: float  # of the shares: how many words are in equal use
    words_a_cell: float  # perplexity of a cell's own distribution, mean over cells
    top_k_mass: float  # mean probability inside the K words kept
    smoothness: float  # share of neighboring cells with the same best word
    smoothness_by_chance: float  # the same with cells in any order
    class_bits: float | None  # what a cell's best word tells of its image's class, of
    bits_of_classes: float | None  # so many; None where images have no classes
    orientation: dict[str, float]  # as in `Health`, and so is
    better_turn: str | None

    @property
    def means(self) -> dict[str, float]:
        """The numbers to print; counts are whole."""
        said: dict[str, float] = {
            "words never seen": sum(share == 0 for share in self.shares),
            "share of the fullest word": max(self.shares),
            "words in equal use": self.perplexity,
            "words a cell": self.words_a_cell,
            "top_k_mass": self.top_k_mass,
            "same word as a neighbor": self.smoothness,
            "by chance": self.smoothness_by_chance,
        }
        if self.class_bits is not None and self.bits_of_classes is not None:
            said |= {"bits of the class": self.class_bits, "of": self.bits_of_classes}
        return said

    def as_dict(self) -> dict[str, Any]:
        return {"means": self.means, "warnings": self.warnings, **asdict(self)}

    @property
    def warnings(self) -> list[str]:
        said = []
        unseen = sum(share == 0 for share in self.shares)
        if self.cells >= _CELLS_A_WORD * self.words and unseen > self.words / 10:
            said.append(
                f"{unseen} of {self.words} words are nowhere a cell's best: learn fewer --words, or"
                " learn them from these images."
            )
        if (most := max(self.shares)) > _OVERFULL:
            said.append(
                f"Word {self.shares.index(most)} holds {most:.0%} of all cells: the features hardly"
                " differ there. Learn more --words, or take another model."
            )
        said += sharing_warning(self.top_k_mass)
        if self.smoothness < 2 * self.smoothness_by_chance:
            said.append(
                "Neighboring cells share their word hardly more often than by chance: the features do"
                " not follow what the image shows. Do not train with these labels."
            )
        told, whole = self.class_bits, self.bits_of_classes
        if told is not None and whole is not None and told < 0.02 * whole:
            said.append(
                f"A cell's word tells {told:.2f} of {whole:.1f} bits of the class: a student will"
                " learn little of these classes from them."
            )
        return said + orientation_warning(self.better_turn)


def check_words(
    store: LabelStore,
    keys: Sequence[str],
    truth: Mapping[str, int],
    pixels: Callable[[str], Pixels] | None = None,
    *,
    sample: int = 1000,
) -> WordHealth:
    """Statistics of a store's words on the images of `keys`, or a random sample of them.

    `truth` maps keys to classes, where images have any; `pixels` are as in `check_health`.
    """
    chosen = sampled(store, keys, sample)
    if not chosen:
        raise InputError(
            f"{store.location} has no label of any of the {len(keys)} images: it belongs to another"
            " data set"
        )
    count = store.num_classes
    seen = torch.zeros(count)
    named: list[tuple[int, Tensor]] = []
    entropy, mass, same = [], [], []
    fits: dict[str, list[float]] = {}
    for key in chosen:
        label = store[key]
        best, probability = label.classes[0], label.probabilities()
        seen += torch.bincount(best.flatten(), minlength=count)
        named.append((truth.get(key, -1), best.flatten()))
        share = probability / probability.sum(0).clamp(min=1e-12)
        entropy.append(-(share * share.clamp(min=1e-12).log()).sum(0).mean())
        mass.append(probability.sum(0).clamp(max=1).mean())
        pairs = [(best[1:] == best[:-1]).flatten(), (best[:, 1:] == best[:, :-1]).flatten()]
        same.append(torch.cat(pairs).float())
        if pixels is not None:
            for turn, fit in orientation_fits(label, pixels(key)).items():
                fits.setdefault(turn, []).append(fit)
    shares = seen / seen.sum()
    classes = {label for label, _ in named if label >= 0}
    return WordHealth(
        images=len(chosen),
        cells=int(seen.sum()),
        words=count,
        shares=shares.tolist(),
        perplexity=float(torch.exp(_entropy(shares))),
        words_a_cell=float(torch.stack(entropy).mean().exp()),
        top_k_mass=float(torch.stack(mass).mean()),
        smoothness=float(torch.cat(same).mean()),
        smoothness_by_chance=float((shares**2).sum()),
        class_bits=_bits(named, count) if len(classes) > 1 else None,
        bits_of_classes=_class_bits(named) if len(classes) > 1 else None,
        orientation={turn: sum(values) / len(values) for turn, values in fits.items()},
        better_turn=better_turn(fits),
    )


def _entropy(shares: Tensor) -> Tensor:
    return -(shares * shares.clamp(min=1e-12).log()).sum()


def _class_bits(named: Sequence[tuple[int, Tensor]]) -> float:
    labels = torch.tensor([label for label, _ in named if label >= 0])
    counts = torch.bincount(labels).double()
    return float(_entropy(counts / counts.sum()) / torch.log(torch.tensor(2.0)))


def _bits(named: Sequence[tuple[int, Tensor]], words: int) -> float:
    """Mutual information of a cell's word and its image's class, in bits.

    What images of exchanged classes would show is taken off: few cells a word look like knowledge.
    """
    known = [(label, cells) for label, cells in named if label >= 0]
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0)).tolist()
    exchanged = [(known[i][0], cells) for i, (_, cells) in zip(order, known, strict=True)]
    return max(_information(known, words) - _information(exchanged, words), 0.0)


def _information(named: Sequence[tuple[int, Tensor]], words: int) -> float:
    joint = torch.zeros(max(label for label, _ in named) + 1, words, dtype=torch.float64)
    for label, cells in named:
        joint[label] += torch.bincount(cells, minlength=words)
    joint /= joint.sum()
    bits = _entropy(joint.sum(0)) + _entropy(joint.sum(1)) - _entropy(joint)
    return float(bits / torch.log(torch.tensor(2.0)))
