"""The label store against the released layout (one float16 `.pt` file an image).

    python benchmarks/bench_store.py [--images FOLDER_OR_TAR]

Maps are 18 x 18, top 5 of 1000 classes. With `--images` they come from photographs: the features of
an untrained ResNet-18 of stride 16 at 288 pixels, normalized over the set, smoothed over 3.4 cells and
scored by a random head; otherwise from smooth random fields. Both are scaled to a mean best
probability of about 0.45, and the number of distinct classes an image is printed, since sizes
depend on it. Reads are random, warm, on one thread, and the opponents take turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStore, LabelStoreWriter
from tokenlabel.labels.released import export_released, read_released

CELLS, CLASSES, K = 18, 1000, 5
ROUNDS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", help="photographs to make the maps from")
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logits = of_images(options.images, options.count) if options.images else fields(options.count)
    logits = logits * (5.0 / logits.std())
    maps = [LabelMap.from_logits(x, K, Box()) for x in logits]
    palette = statistics.mean(len(m.classes.unique()) for m in maps)
    best = statistics.mean(float(m.probabilities()[0].mean()) for m in maps)
    print(f"{len(maps)} maps, {palette:.0f} classes an image, mean best probability {best:.2f}")
    with tempfile.TemporaryDirectory() as folder:
        sizes_and_speeds(maps, Path(folder))


def sizes_and_speeds(maps: list[LabelMap], folder: Path) -> None:
    keys = [f"n{i % 1000:08d}/n{i % 1000:08d}_{i:05d}.JPEG" for i in range(len(maps))]
    stores = {}
    for codec in ("compact", "exact", "raw"):
        start = time.perf_counter()
        with LabelStoreWriter(folder / codec, num_classes=CLASSES, codec=codec) as writer:
            for key, label in zip(keys, maps, strict=True):
                writer.add(key, label)
        seconds = (time.perf_counter() - start) / len(maps)
        stores[codec] = LabelStore(folder / codec)
        print(f"write {codec}: {1e6 * seconds:.0f} us an image")
    export_released(stores["exact"], folder / "released")
    files = {key: folder / "released" / f"{key[:-5]}.pt" for key in keys}
    readers: dict[str, Callable[[str], LabelMap]] = {
        "released": lambda key: read_released(files[key], Box(), CLASSES),
        "released, load alone": lambda key: torch.load(files[key], weights_only=True),
        **{codec: store.__getitem__ for codec, store in stores.items()},
    }
    times: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(ROUNDS):
        order = [keys[i] for i in np.random.default_rng().permutation(len(keys))]
        for name, read in readers.items():
            start = time.process_time()
            for key in order:
                read(key)
            times[name].append((time.process_time() - start) / len(order))
    disk = {
        "released": sum(path.stat().st_blocks * 512 for path in files.values()),
        **{c: sum(p.stat().st_size for p in (folder / c).iterdir()) for c in stores},
    }
    slow = statistics.median(times["released, load alone"])
    for name, values in times.items():
        middle, size = statistics.median(values), disk.get(name)
        print(
            f"{name:21} {1e6 * middle:6.1f} us a read (best {1e6 * min(values):.1f})"
            f" = 1/{slow / middle:.1f} of torch.load"
            + (f", {size / len(keys):.0f} bytes an image on disk" if size else "")
        )
    for codec, store in stores.items():
        error = [variation(m, store[key]) for m, key in zip(maps, keys, strict=True)]
        print(f"{codec}: total variation {statistics.mean(error):.5f}, mean over cells")


def variation(a: LabelMap, b: LabelMap) -> float:
    p, q = (m.probabilities().gather(0, m.classes.argsort(0)) for m in (a, b))
    return float((p - q).abs().sum(0).mean() / 2)


# -- maps ----------------------------------------------------------------------------------------


def fields(count: int) -> Tensor:
    """Smooth random logits [N, C, h, w]: an image shows a few dozen of the classes."""
    generator = torch.Generator().manual_seed(0)
    out = []
    for _ in range(count):
        coarse = torch.randn(1, CLASSES, 5, 5, generator=generator)
        smooth = F.interpolate(coarse, (CELLS, CELLS), mode="bicubic")[0]
        strength = torch.randn(CLASSES, 1, 1, generator=generator) * 1.3
        noise = torch.randn(CLASSES, CELLS, CELLS, generator=generator) * 0.05
        out.append(smooth + strength + noise)
    return torch.stack(out)


def of_images(location: str, count: int) -> Tensor:
    """Logits [N, C, h, w] of photographs, by an untrained network and a random head."""
    import timm

    from tokenlabel.data.decode import decode_image
    from tokenlabel.data.inputs import Preprocessing
    from tokenlabel.data.open import open_source

    torch.manual_seed(0)
    network = timm.create_model("resnet18", output_stride=16).train()  # batch statistics
    inputs = Preprocessing((288, 288), 1.0, "bicubic", (0.45,) * 3, (0.225,) * 3, "squash")
    source = open_source(location)
    count = min(count, len(source))
    features = []
    with torch.no_grad():
        for start in range(0, count, 20):
            pixels = [
                inputs.pixels(decode_image(source.read(i), source.keys[i]))
                for i in range(start, min(start + 20, count))
            ]
            features.append(network.forward_features(inputs.normalize(torch.stack(pixels))))
    x = torch.cat(features)
    x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
    sigma, reach = 3.4, 11
    weights = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.pad(x, (reach,) * 4, mode="replicate")
    x = F.conv2d(x, weights, groups=x.shape[1])
    x = F.conv2d(x, weights.mT, groups=x.shape[1])
    head = torch.randn(CLASSES, x.shape[1]) / x.shape[1] ** 0.5
    return torch.einsum("nchw,kc->nkhw", x, head)


if __name__ == "__main__":
    main()
