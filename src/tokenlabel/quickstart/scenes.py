"""Scenes composed of real handwritten digits, written as an ordinary image folder.

The 1797 scans of scikit-learn's digits (8 x 8, from the UCI repository) are divided into training and
held-out scans; a scene shows one *main* digit at a random place and scale, smaller digits of other
classes beside it, clutter cut from other scans, a shaded background and noise. The image's label is the
main digit: as on photographs, it says nothing of what else is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenlabel.errors import InputError
from tokenlabel.progress import progress_bar

__all__ = ["Scene", "SceneOptions", "compose_scene", "split_scans", "write_scenes"]

BACKGROUND = 255  # mask value of pixels that belong to no digit
_HELD_OUT = 0.3  # of the scans

Scans = tuple[NDArray[np.float32], NDArray[np.int64]]  # [N, 8, 8] in [0, 1], labels [N]


@dataclass(frozen=True)
class SceneOptions:
    """How scenes look; sizes in pixels."""

    size: int = 24
    main_digit: tuple[int, int] = (11, 15)
    other_digit: tuple[int, int] = (6, 8)
    others: int = 1
    clutter: int = 2
    noise: float = 0.08


@dataclass(frozen=True)
class Scene:
    image: NDArray[np.uint8]  # [size, size, 3]
    label: int
    mask: NDArray[np.uint8]  # [size, size]: the digit each pixel belongs to, or BACKGROUND


def split_scans() -> tuple[Scans, Scans]:
    """The digits' scans and labels, divided by class into training and held-out ones."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise InputError(
            "the demo's digits come with scikit-learn: pip install 'tokenlabel[demo]'"
        ) from None

    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    train, test, train_labels, test_labels = train_test_split(
        images, digits.target, test_size=_HELD_OUT, random_state=0, stratify=digits.target
    )
    return (train, train_labels), (test, test_labels)


def compose_scene(
    scans: Scans, label: int, rng: np.random.Generator, options: SceneOptions
) -> Scene:
    """One scene whose main digit is of class `label`."""
    size = options.size
    canvas = _background(rng, size)
    mask = np.full((size, size), BACKGROUND, np.uint8)
    for _ in range(options.clutter):
        _paste(canvas, None, _clutter(scans, rng), rng, BACKGROUND)
    others = rng.choice([c for c in range(10) if c != label], options.others, replace=False)
    for other in others:
        _paste(canvas, mask, _digit(scans, int(other), options.other_digit, rng), rng, int(other))
    _paste(canvas, mask, _digit(scans, label, options.main_digit, rng), rng, label)
    tint = rng.uniform(0.75, 1.0, 3).astype(np.float32)
    noisy = canvas[..., None] * tint + rng.normal(0, options.noise, (size, size, 3))
    return Scene((noisy.clip(0, 1) * 255).round().astype(np.uint8), label, mask)


def write_scenes(
    root: Path, scans: Scans, count: int, seed: int, options: SceneOptions, title: str
) -> None:
    """Write `count` scenes as `root/images/<digit>/<number>.png` and `root/masks/<digit>/...`.

    Classes are balanced. The folder appears under its name only once it is complete.
    """
    draft = root.with_name(root.name + ".partial")
    for digit in range(10):
        (draft / "images" / str(digit)).mkdir(parents=True, exist_ok=True)
        (draft / "masks" / str(digit)).mkdir(parents=True, exist_ok=True)
    with progress_bar() as bar:
        for i in bar.track(range(count), description=title):
            scene = compose_scene(scans, i % 10, np.random.default_rng([seed, i]), options)
            name = f"{scene.label}/{i:05d}.png"
            Image.fromarray(scene.image).save(draft / "images" / name)
            Image.fromarray(scene.mask).save(draft / "masks" / name)
    draft.rename(root)


def _background(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """A soft ramp of gray in a random direction."""
    angle, low, high = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.2), rng.uniform(0.1, 0.4)
    y, x = np.mgrid[0:size, 0:size] / (size - 1) - 0.5
    ramp = np.cos(angle) * x + np.sin(angle) * y + 0.5
    return np.asarray(low + (high - low) * ramp, dtype=np.float32)


def _digit(
    scans: Scans, label: int, sides: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    images, labels = scans
    scan = images[rng.choice(np.flatnonzero(labels == label))]
    return _resized(scan, int(rng.integers(sides[0], sides[1] + 1)))


def _clutter(scans: Scans, rng: np.random.Generator) -> NDArray[np.float32]:
    """A piece of a scan, turned: strokes that are no digit."""
    scan = scans[0][int(rng.integers(len(scans[0])))]
    top, left = rng.integers(0, 4, 2)
    piece = np.rot90(scan[top : top + 5, left : left + 4], int(rng.integers(4)))
    return _resized(piece, int(rng.integers(5, 9)))


def _resized(scan: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    image = Image.fromarray(np.ascontiguousarray(scan)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    return np.asarray(image).clip(0, 1)


def _paste(
    canvas: NDArray[np.float32],
    mask: NDArray[np.uint8] | None,
    patch: NDArray[np.float32],
    rng: np.random.Generator,
    label: int,
) -> None:
    """Lay a bright patch over the canvas at a random place; it hides what is under its strokes."""
    top, left = rng.integers(0, canvas.shape[0] - patch.shape[0] + 1, 2)
    rows, cols = slice(top, top + patch.shape[0]), slice(left, left + patch.shape[1])
    ink = patch * rng.uniform(0.75, 1.0)
    canvas[rows, cols] = np.maximum(canvas[rows, cols] * (1 - patch), ink)
    if mask is not None:
        mask[rows, cols][patch > 0.3] = label
