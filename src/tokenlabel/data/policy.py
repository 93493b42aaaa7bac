"""Augmentation policies in timm's notation, drawn operation by operation.

timm parses the strings and holds the tables of operations and magnitudes; only the drawing is done
here, so that the parameters of every operation are known before anything touches an image.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from timm.data.auto_augment import (
    AugmentOp,
    augment_and_mix_transform,
    auto_augment_transform,
    rand_augment_transform,
)
from torchvision.transforms import TrivialAugmentWide

from tokenlabel.data.photometric import change_pixels
from tokenlabel.errors import InputError, nearest
from tokenlabel.geometry import View
from tokenlabel.geometry.render import Pixels

__all__ = ["AugMixture", "Operation", "Policy", "parse_policy"]

# sections that each kind of policy takes, beside its name
_SECTIONS = {
    "rand": {"m", "n", "p", "mstd", "mmax", "inc"},
    "augmix": {"m", "w", "d", "a", "b", "mstd"},
    "original": {"mstd"},
    "originalr": {"mstd"},
    "v0": {"mstd"},
    "v0r": {"mstd"},
    "3a": {"mstd"},
    "trivial": set(),
}
_TRANSFORM_SETS = {"tweights", "t3a", "t3aw"}
_GEOMETRIC = {"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}


class Operation(NamedTuple):
    """One operation with its drawn arguments, by timm's name."""

    name: str
    args: tuple[float, ...] = ()

    @property
    def geometric(self) -> bool:
        return self.name in _GEOMETRIC

    def view(self, size: tuple[int, int]) -> View:
        """A geometric operation on a canvas of `size` = (height, width) pixels.

        Translations are by whole pixels: a crop that follows still begins at a whole pixel, and the
        image is resampled once.
        """
        (amount,), (height, width) = self.args, size
        aspect = width / height
        match self.name:
            case "Rotate":
                return View.rotation(amount, aspect)
            case "ShearX":
                return View.shear(amount, 0.0, aspect)
            case "ShearY":
                return View.shear(0.0, amount, aspect)
            case "TranslateXRel":
                return View.translation(-round(amount * width) / width, 0.0)
            case _:
                return View.translation(0.0, -round(amount * height) / height)

    def apply(self, pixels: Pixels) -> Pixels:
        """A photometric operation on pixels [H, W, C]."""
        return change_pixels(pixels, self.name, self.args)


@dataclass(frozen=True)
class AugMixture:
    """AugMix's blend of the image with a weighted mean of differently augmented copies of it."""

    chains: tuple[tuple[Operation, ...], ...]
    weights: tuple[float, ...]
    share: float  # of the mean, in the blend with the image itself

    geometric = False

    def apply(self, pixels: Pixels) -> Pixels:
        mean = np.zeros(pixels.shape, np.float32)
        for chain, weight in zip(self.chains, self.weights, strict=True):
            copy = pixels
            for operation in chain:
                copy = operation.apply(copy)
            mean += np.float32(weight) * copy
        mixed = pixels + np.float32(self.share) * (
            mean.astype(pixels.dtype) - pixels.astype(np.float32)
        )
        return mixed.astype(pixels.dtype)


class Policy(Protocol):
    """Draws the operations of one sample, in the order of their application."""

    def draw(self, rng: np.random.Generator) -> list[Operation | AugMixture]: ...


def parse_policy(text: str, mean: tuple[int, ...]) -> Policy:
    """The policy that `text` names, in timm's notation; `mean` is the images' mean color.

    `rand-m9-mstd0.5-inc1` (RandAugment, with `n`, `p`, `mmax` and the sets `tweights`, `t3a`, `t3aw`),
    `original`, `originalr`, `v0`, `v0r` (AutoAugment), `3a` (3-Augment), `augmix-m3-w3`, and
    `trivial` (TrivialAugment, wide, by torchvision's table). Raises InputError.
    """
    kind, *sections = text.split("-")
    if kind not in _SECTIONS:
        known = ", ".join(_SECTIONS)
        raise InputError(
            f"no augmentation policy {kind!r}{nearest(kind, _SECTIONS)}: there are {known}"
        )
    for section in sections:
        option = re.fullmatch(r"([a-z]+)(\d+\.?\d*)", section)
        named = kind == "rand" and section in _TRANSFORM_SETS
        if not named and (option is None or option[1] not in _SECTIONS[kind]):
            known = ", ".join(
                sorted(_SECTIONS[kind] | (_TRANSFORM_SETS if kind == "rand" else set()))
            )
            raise InputError(
                f"augmentation policy {text!r}: {section!r} is none of {known or 'any'}"
            )
    settings: dict[str, Any] = {"img_mean": mean}
    if kind == "rand":
        transform = rand_augment_transform(text, settings)
        return _Layers(transform.ops, transform.num_layers, transform.choice_weights)
    if kind == "augmix":
        return _AugMix(augment_and_mix_transform(text, settings | {"translate_pct": 0.3}))
    if kind == "trivial":
        return _Trivial(TrivialAugmentWide()._augmentation_space(31))
    return _SubPolicies(auto_augment_transform(text, settings).policy)


@dataclass(frozen=True)
class _Layers:
    """RandAugment: `layers` operations, each applied with its probability."""

    ops: list[AugmentOp]
    layers: int
    weights: np.ndarray[Any, Any] | None

    def draw(self, rng: np.random.Generator) -> list[Operation | AugMixture]:
        if self.weights is None:
            picks = rng.integers(len(self.ops), size=self.layers)
        else:
            picks = rng.choice(len(self.ops), self.layers, replace=False, p=self.weights)
        return _draw_each([self.ops[pick] for pick in picks], rng)


@dataclass(frozen=True)
class _SubPolicies:
    """AutoAugment: one of several sequences of operations."""

    policies: list[list[AugmentOp]]

    def draw(self, rng: np.random.Generator) -> list[Operation | AugMixture]:
        return _draw_each(self.policies[rng.integers(len(self.policies))], rng)


@dataclass(frozen=True)
class _AugMix:
    """AugMix. An average of differently warped copies has no one label map, so the geometry of the
    first chain is that of the whole image, and the others' geometric operations are left out."""

    transform: Any  # timm's AugMixAugment

    def draw(self, rng: np.random.Generator) -> list[Operation | AugMixture]:
        alpha, width = self.transform.alpha, self.transform.width
        weights, share = rng.dirichlet([alpha] * width), rng.beta(alpha, alpha)
        chains = []
        for _ in range(width):
            depth = self.transform.depth if self.transform.depth > 0 else rng.integers(1, 4)
            picks = rng.choice(len(self.transform.ops), depth)
            chains.append(_draw_each([self.transform.ops[pick] for pick in picks], rng))
        photometric = tuple(tuple(op for op in chain if not op.geometric) for chain in chains)
        geometric = [operation for operation in chains[0] if operation.geometric]
        return [*geometric, AugMixture(photometric, tuple(weights.tolist()), float(share))]


@dataclass(frozen=True)
class _Trivial:
    """TrivialAugment: one operation at a magnitude drawn evenly."""

    space: Mapping[str, tuple[Any, bool]]  # torchvision's: name -> (magnitudes, signed)
    pixels: int = 224  # side of the images that the table's translations in pixels are meant for

    def draw(self, rng: np.random.Generator) -> list[Operation | AugMixture]:
        name = list(self.space)[rng.integers(len(self.space))]
        magnitudes, signed = self.space[name]
        if magnitudes.ndim == 0:
            return [] if name == "Identity" else [Operation(name)]
        amount = float(magnitudes[rng.integers(len(magnitudes))])
        amount = -amount if signed and rng.random() < 0.5 else amount
        match name:
            case "TranslateX" | "TranslateY":
                return [Operation(f"{name}Rel", (amount / self.pixels,))]
            case "Brightness" | "Color" | "Contrast" | "Sharpness":
                return [Operation(name, (1.0 + amount,))]
            case _:
                return [Operation(name, (amount,))]


def _draw_each(ops: list[AugmentOp], rng: np.random.Generator) -> list[Any]:
    with _python_random(rng):
        drawn = [_draw(op, rng) for op in ops]
    return [operation for operation in drawn if operation is not None]


def _draw(op: AugmentOp, rng: np.random.Generator) -> Operation | None:
    """Whether an operation happens, and at what strength: what timm's `AugmentOp` does on call."""
    if op.prob < 1.0 and rng.random() > op.prob:
        return None
    magnitude = op.magnitude
    if op.magnitude_std == float("inf"):
        magnitude = rng.uniform(0, magnitude)
    elif op.magnitude_std > 0:
        magnitude = rng.normal(magnitude, op.magnitude_std)
    magnitude = float(min(max(magnitude, 0.0), op.magnitude_max or 10.0))
    args: tuple[float, ...] = op.level_fn(magnitude, op.hparams) if op.level_fn else ()
    if op.name == "GaussianBlurRand":
        return Operation("GaussianBlur", (float(rng.uniform(0.1, 2.0 * args[0])),))
    return Operation(op.name, tuple(args))


@contextmanager
def _python_random(rng: np.random.Generator) -> Iterator[None]:
    """Let timm's tables, which draw signs from Python's global generator, draw from `rng`."""
    before = random.getstate()
    random.seed(int(rng.integers(1 << 62)))
    try:
        yield
    finally:
        random.setstate(before)
