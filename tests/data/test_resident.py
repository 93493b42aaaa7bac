"""Images and label maps on the device give the batches that loaders make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel.data.augment import Augmentation
from tokenlabel.data.batch import Batch
from tokenlabel.data.channels import of_channels
from tokenlabel.data.loader import train_loader
from tokenlabel.data.open import open_source
from tokenlabel.data.resident import ResidentSamples
from tokenlabel.data.samples import Targets
from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStore, LabelStoreWriter

PLAIN = Augmentation(scale=(0.3, 1.0), vflip=0.3, interpolation="bilinear")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
    ),
]


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    """Twelve images of 28 x 36 pixels, of noise over a slope."""
    folder = tmp_path_factory.mktemp("alike")
    random = np.random.default_rng(0)
    for index in range(12):
        slope = np.linspace(0, 200, 36)[None, :, None] + random.uniform(0, 55, (28, 36, 3))
        file = folder / "abcd"[index % 4] / f"{index}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(slope.astype(np.uint8)).save(file)
    return open_source(str(folder))


@pytest.fixture
def labels(alike: ImageSource, tmp_path: Path) -> LabelStore:
    generator = torch.Generator().manual_seed(0)
    with LabelStoreWriter(tmp_path / "labels", num_classes=4) as writer:
        for key in alike.keys:
            logits = torch.randn(4, 6, 5, generator=generator) * 3
            writer.add(key, LabelMap.from_logits(logits, 3, Box()))
    return LabelStore(tmp_path / "labels")


def batches(source: ImageSource, cache: str, device: str = "cpu", **options: Any) -> list[Batch]:
    settings = {"image_size": (24, 32), "batch_size": 4, "seed": 3, **options}
    augmentation = settings.pop("augmentation", PLAIN)
    loader = train_loader(source, augmentation, cache=cache, **settings)
    return [batch.to(device) for batch in loader.epoch(2)]


def pairs(*runs: list[Batch]) -> Iterator[tuple[Batch, Batch]]:
    assert len(runs[0]) == len(runs[1]) > 0
    yield from zip(*runs, strict=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "random"])
@pytest.mark.parametrize("size", [(24, 32), (64, 48), (9, 7)])
def test_pixels_are_those_of_the_loader(
    alike: ImageSource, kind: Any, size: tuple[int, int], device: str
) -> None:
    options = {"augmentation": replace(PLAIN, interpolation=kind), "image_size": size}
    runs = batches(alike, "ram", **options), batches(alike, "device", device, **options)
    for loaded, made in pairs(*runs):
        assert made.images.device.type == device
        assert made.images.is_contiguous(memory_format=torch.channels_last)
        difference = (loaded.images.int() - made.images.cpu().int()).abs()
        assert difference.max() <= 2
        assert (difference == 0).float().mean() > 0.9  # the rest is how products are rounded
        assert made.keys == loaded.keys
        assert torch.equal(made.labels.cpu(), loaded.labels)


@pytest.mark.parametrize(("channels", "kind"), [(1, np.uint8), (4, np.uint8), (2, np.uint16)])
def test_other_channels_and_depths_keep_theirs(tmp_path: Path, channels: int, kind: Any) -> None:
    random = np.random.default_rng(0)
    for index in range(8):
        file = tmp_path / "ab"[index % 2] / f"{index}.npy"
        file.parent.mkdir(exist_ok=True)
        np.save(file, random.integers(0, np.iinfo(kind).max, (14, 18, channels), kind))
    source = of_channels(open_source(str(tmp_path)), channels)
    runs = batches(source, "ram"), batches(source, "device")
    for loaded, made in pairs(*runs):
        assert made.images.dtype == loaded.images.dtype
        assert made.images.shape[1] == channels
        difference = (loaded.images.float() - made.images.float()).abs().max()
        assert difference <= (2 if kind == np.uint8 else 1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_targets_are_those_of_the_loader(
    alike: ImageSource, labels: LabelStore, device: str
) -> None:
    targets = Targets(labels=labels, grid=(3, 4))
    options = {"targets": targets, "more": (replace(targets, grid=(2, 2)),)}
    runs = batches(alike, "ram", **options), batches(alike, "device", device, **options)
    for loaded, made in pairs(*runs):
        for one, other in zip(
            (loaded.target, *loaded.more), (made.target, *made.more), strict=True
        ):
            assert one is not None
            assert other is not None
            torch.testing.assert_close(one.dense(), other.dense().cpu(), atol=1e-6, rtol=1e-5)
            assert torch.equal(one.mask, other.mask.cpu())


def test_workers_send_what_is_drawn_and_change_nothing(
    alike: ImageSource, labels: LabelStore
) -> None:
    options = {
        "targets": Targets(labels=labels, grid=(3, 4)),
        "augmentation": replace(PLAIN, interpolation="random"),
    }
    runs = (batches(alike, "device", workers=count, **options) for count in (0, 2))
    for here, sent in pairs(*runs):
        assert torch.equal(here.images, sent.images)
        assert torch.equal(here.labels, sent.labels)
        assert here.keys == sent.keys
        assert here.target is not None
        assert sent.target is not None
        assert torch.equal(here.target.excess, sent.target.excess)


def test_targets_stay_exact_within_half_precision(alike: ImageSource, labels: LabelStore) -> None:
    options = {"targets": Targets(labels=labels, grid=(3, 4))}
    plain = batches(alike, "device", **options)
    with torch.autocast("cpu", torch.bfloat16):
        within = batches(alike, "device", **options)
    for one, other in pairs(plain, within):
        assert one.target is not None
        assert other.target is not None
        assert torch.equal(one.target.excess, other.target.excess)
        assert torch.equal(one.images, other.images)


def test_what_cannot_be_made_on_the_device_is_refused(
    alike: ImageSource, source: ImageSource
) -> None:
    for change in (
        {"policy": "rand-m9-mstd0.5-inc1"},
        {"erasing": 0.5},
        {"color_jitter": 0.3},
    ):
        with pytest.raises(InputError, match=r"crops and flips only: use data\.cache=ram"):
            batches(alike, "device", augmentation=replace(PLAIN, **change))
    with pytest.raises(InputError, match="images of one size, these have"):
        batches(source, "device")


def test_images_are_moved_once(alike: ImageSource, monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[torch.device] = []
    move = ResidentSamples._move
    monkeypatch.setattr(
        ResidentSamples, "_move", lambda self, device: (moves.append(device), move(self, device))
    )
    place = torch.device(
        "cpu", 0
    )  # of its tensors the device is "cpu": other devices differ so, too
    loader = train_loader(alike, PLAIN, cache="device", image_size=(16, 16), batch_size=4)
    for batch in loader.epoch(0):
        batch.to(place)
    assert moves == [place]
