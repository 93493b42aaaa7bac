"""Images a second of one worker against plain Pillow in the published order, interleaved.

    python benchmarks/bench_input.py images.tar [--rounds 5]

Opponent: Pillow decodes the image; timm's RandAugment acts on it at full size, one operation after
another; crop, resize and flip follow; the label map is one `.pt` file, read by `torch.load`.
Ours: the package's own loader without workers, label store and token targets included. Both draw
crops of 8-100 % of the area and give 224 x 224 bytes; without
targets our loader reads no labels. "packed" reads what `tokenlabel pack` makes of the photographs (short
side 256), "kept decoded" has `cache="ram"` on top. Times are processor seconds of one thread.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.transforms import RandomResizedCropAndInterpolation

from tokenlabel import Box, LabelMap, View, token_targets
from tokenlabel.choices import Cache
from tokenlabel.data.augment import Augmentation
from tokenlabel.data.decode import decode_image, image_size
from tokenlabel.data.loader import train_loader
from tokenlabel.data.open import open_source
from tokenlabel.data.pack import pack_images, packed_size
from tokenlabel.data.samples import Targets, pixels_needed
from tokenlabel.data.source import ImageSource
from tokenlabel.geometry import render
from tokenlabel.labels import LabelStore, LabelStoreWriter

SIZE, GRID, SIDE, K = (224, 224), (14, 14), 18, 5
PACKED = 256
POLICY = "rand-m9-mstd0.5-inc1"


class PlainPillow:
    """The published order, one image at a time."""

    def __init__(self, source: ImageSource, labels: Path, policy: str | None) -> None:
        self.source, self.labels = source, labels
        self.crop = RandomResizedCropAndInterpolation(SIZE, interpolation="random")
        gray = {"img_mean": (124, 116, 104)}
        self.policy = rand_augment_transform(policy, gray) if policy else None
        for op in self.policy.ops if self.policy else ():
            if op.name.startswith(
                "Posterize"
            ):  # 0 bits, which timm draws, are an error in Pillow 13
                plain = op.aug_fn
                op.aug_fn = lambda image, bits, f=plain, **rest: f(image, max(bits, 1), **rest)

    def __call__(self) -> None:
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 - what timm draws from
        for index in range(len(self.source)):
            image = Image.open(io.BytesIO(self.source.read(index))).convert("RGB")
            torch.load(self.labels / f"{index}.pt")
            image = self.policy(image) if self.policy else image
            image = self.crop(image)
            if random.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            np.array(image).transpose(2, 0, 1)


def write_labels(source: ImageSource, folder: Path) -> LabelStore:
    """The same maps, of some 55 classes each, as one `.pt` file an image and as a store."""
    generator = torch.Generator().manual_seed(0)
    classes = len(source.class_names)
    with LabelStoreWriter(folder / "store", num_classes=classes) as writer:
        for index, key in enumerate(source.keys):
            coarse = torch.randn(1, 55, 5, 5, generator=generator) * 4
            smooth = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic")[0]
            logits = torch.full((classes, SIDE, SIDE), -20.0)
            logits[torch.randperm(classes, generator=generator)[:55]] = smooth
            label_map = LabelMap.from_logits(logits, K, Box())
            writer.add(key, label_map)
            pair = torch.stack([label_map.scores, label_map.classes.float()])
            torch.save(pair.half(), folder / f"{index}.pt")
    return LabelStore(folder / "store")


def ours(
    source: ImageSource, labels: LabelStore | None, policy: str | None, cache: Cache = "none"
) -> Callable[[], None]:
    loader = train_loader(
        source,
        Augmentation(policy=policy),
        image_size=SIZE,
        batch_size=50,
        targets=Targets(labels=labels, grid=GRID) if labels else None,
        cache=cache,
    )

    def run() -> None:
        for _ in loader.epoch(0):
            pass

    return run


def misregistration(source: ImageSource, policy: str | None, packed: int | None) -> float:
    """Mean distance, in tokens, between where pixels and targets say that a token comes from.

    Every image is replaced by a JPEG of its own coordinates, and its label map by one whose two
    classes have x and 1 - x (then y and 1 - y) as probabilities; both go the whole way.
    """
    augmentation, rng = Augmentation(policy=policy), np.random.default_rng(1)
    distances = []
    for index in range(len(source)):
        shape = image_size(source.read(index), "image")
        small = shape
        if packed is not None and min(shape) > packed:
            small = packed_size(shape, packed)
        view = augmentation.draw(small, SIZE, rng).view
        distances.append(token_distances(view, shape, small))
    return float(np.concatenate(distances).mean())


def token_distances(
    view: View, shape: tuple[int, int], small: tuple[int, int]
) -> NDArray[np.float64]:
    """Distances, in tokens, of those tokens that lie wholly inside the image."""
    box = view.source_box()
    shown, meant = [], []
    for axis, (low, high) in enumerate(((box.x0, box.x1), (box.y0, box.y1))):
        place = (np.indices(shape)[1 - axis] + 0.5) / shape[1 - axis]
        value = ((place - low) / (high - low)).clip(0, 1)  # the crop's own range: finest bytes
        # a falling ramp beside the rising one, so that rounding down has no share in the difference
        pixels = np.stack([value, 1 - value, value], -1)
        file = io.BytesIO()
        whole = (pixels * 255).round().astype(np.uint8)
        if small != shape:
            whole = render(whole, View.identity(), small, "bicubic")
        image = Image.fromarray(whole)
        image.save(file, "JPEG", quality=100, subsampling=0)
        decoded = decode_image(
            file.getvalue(), "ramp", fast=True, at_least=pixels_needed(view, SIZE)
        )
        rendered = render(decoded, view, SIZE, "bilinear").astype(float)
        tokens = rendered.reshape(GRID[0], 16, GRID[1], 16, 3).mean((1, 3))
        shown.append((tokens[..., 0] - tokens[..., 1]) / 510 * (high - low) + (high + low) / 2)
        cells = torch.from_numpy((np.indices((144, 144))[1 - axis] + 0.5) / 144)
        probability = torch.stack([cells, 1 - cells])
        ids = torch.tensor([0, 1])[:, None, None].expand_as(probability)
        label_map = LabelMap(probability.log(), ids, torch.zeros(144, 144), Box(), 2)
        target = token_targets([label_map], [view], GRID, smoothing=0)
        meant.append(target.dense()[0, 1:, 0].view(GRID).numpy())
    corners = view.valid_pixels(SIZE).reshape(GRID[0], 16, GRID[1], 16).all((1, 3))
    difference = (np.array(shown) - np.array(meant))[:, corners]
    to_output = np.linalg.inv(view.to_source[:, :2])
    return np.linalg.norm((to_output @ difference) * np.array(GRID[::-1])[:, None], axis=0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", help="a folder or tar of photographs")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = open_source(options.images)
    count = len(source) // 50 * 50
    with tempfile.TemporaryDirectory() as folder:
        labels = write_labels(source, Path(folder))
        pack_images(source, Path(folder) / "packed", short_side=PACKED)
        packed = open_source(str(Path(folder) / "packed"))
        for name, policy in (("plain crops", None), (POLICY, POLICY)):
            contestants = {
                "Pillow": PlainPillow(source, Path(folder), policy),
                "ours": ours(source, labels, policy),
                "ours, images alone": ours(source, None, policy),
                "ours, packed": ours(packed, labels, policy),
                "ours, packed, kept decoded": ours(packed, labels, policy, "ram"),
            }
            seconds: dict[str, list[float]] = {name: [] for name in contestants}
            for _ in range(options.rounds + 1):
                for contestant, function in contestants.items():
                    start = time.process_time()
                    function()
                    seconds[contestant].append(time.process_time() - start)
            medians = {key: statistics.median(values[1:]) for key, values in seconds.items()}
            print(f"{name}, images a second and core (times the speed of Pillow):")
            for contestant, median in medians.items():
                images = len(source) if contestant == "Pillow" else count
                ratio = images / median / (len(source) / medians["Pillow"])
                print(f"  {contestant:27s} {images / median:6.0f}  ({ratio:.2f}x)")
    for policy in (None, POLICY):
        for side in (None, PACKED):
            distance = misregistration(source, policy, side)
            print(f"misregistration with {policy}, packed at {side}: {distance:.3f} tokens")


if __name__ == "__main__":
    main()
