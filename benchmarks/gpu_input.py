"""What loaders and annotator give a GPU: images a second.

    python benchmarks/gpu_input.py [--device cuda] [--images 8192]

Synthetic images. Loaders: 32-pixel images from memory with token targets (decoded images kept), as the
proof's students take them, and 224-pixel JPEG photographs with token targets, by every core. Annotator:
a ResNet-50 at 224 pixels with random weights, in the arithmetic that `auto` chooses, images already
decoded. Wall seconds of the second epoch, or after warming up.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tokenlabel import Box, LabelMap
from tokenlabel.annotators.classifier import ClassifierSpec
from tokenlabel.annotators.spec import Network
from tokenlabel.data.augment import Augmentation
from tokenlabel.data.loader import train_loader
from tokenlabel.data.open import open_images
from tokenlabel.data.samples import Targets
from tokenlabel.labels import LabelStore, LabelStoreWriter

CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--images", type=int, default=8192)
    options = parser.parse_args()
    workers = os.cpu_count() or 1
    for side, count, cache in ((32, options.images, "ram"), (224, options.images // 4, "none")):
        with tempfile.TemporaryDirectory() as place:
            rate = loader_rate(Path(place), side, count, cache, workers)
        print(f"loader, {side} px, {workers} workers: {rate:,.0f} images/s", flush=True)
    device = torch.device(options.device)
    print(
        f"annotator, ResNet-50 at 224 px: {annotator_rate(device, options.images // 8):,.1f} images/s"
    )


def loader_rate(place: Path, side: int, count: int, cache: str, workers: int) -> float:
    rng = np.random.default_rng(0)
    noise = torch.Generator().manual_seed(0)
    with LabelStoreWriter(place / "labels", num_classes=CLASSES) as labels:
        for number in range(count):
            key = f"{number % CLASSES}/{number:06d}.jpg"
            path = place / "images" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
            coarse.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
            logits = torch.randn(CLASSES, 8, 8, generator=noise)
            labels.add(key, LabelMap.from_logits(logits, 5, Box()))
    loader = train_loader(
        open_images(str(place / "images")),
        Augmentation(scale=(0.5, 1.0), interpolation="bilinear"),
        image_size=(side, side),
        batch_size=min(256, count),
        targets=Targets(labels=LabelStore(place / "labels"), grid=(8, 8)),
        cache=cache,  # type: ignore[arg-type]
        workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
    seen, begun = 0, 0.0
    for epoch in range(2):  # in the first one the workers start
        seen, begun = 0, time.perf_counter()
        for batch in loader.epoch(epoch):
            seen += len(batch)
    return seen / (time.perf_counter() - begun)


def annotator_rate(device: torch.device, count: int) -> float:
    spec = ClassifierSpec(
        model="resnet50",
        pretrained=False,
        keep_classes=True,
        network=Network(fit="crop", image_size=224),
    )
    annotator = spec.build([], device)
    batch = min(annotator.batch_size(), count)
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    items = [annotator.prepare("", pixels)] * batch
    annotator.annotate(items)
    begun, done = time.perf_counter(), 0
    while done < count:
        annotator.annotate(items)
        done += batch
    return done / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
