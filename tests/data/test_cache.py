"""Kept decoded images change no batch, are made once, and are never stale or damaged in silence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tokenlabel.choices import Cache
from tokenlabel.data import cache as cache_module
from tokenlabel.data.augment import Augmentation
from tokenlabel.data.cache import decoded_images, may_be_reduced
from tokenlabel.data.channels import of_channels
from tokenlabel.data.decode import decode_image
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.loader import eval_loader, train_loader
from tokenlabel.data.open import open_source
from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore

SHOWN = Preprocessing((24, 24), 0.9, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(autouse=True)
def _cache_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENLABEL_CACHE", str(tmp_path / "cache"))


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "images").iterdir())


def reads(source: ImageSource, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills with the numbers of the images that are read from their files."""
    found: list[int] = []
    read = type(source).read
    monkeypatch.setattr(type(source), "read", lambda s, i: found.append(i) or read(s, i))
    return found


@pytest.mark.parametrize(("cache", "workers"), [("ram", 0), ("ram", 2), ("disk", 1)])
def test_batches_are_bit_equal_with_a_cache(
    source: ImageSource, cache: Cache, workers: int
) -> None:
    augmentation = Augmentation(policy="rand-m9-mstd0.5-inc1", scale=(0.5, 1.0), erasing=0.5)
    options = {"image_size": (24, 16), "batch_size": 5, "seed": 3}
    plain = train_loader(source, augmentation, **options)
    fast = train_loader(source, augmentation, **options, cache=cache, workers=workers)
    for epoch in (0, 1):
        for a, b in zip(plain.epoch(epoch), fast.epoch(epoch), strict=True):
            assert a.keys == b.keys
            assert torch.equal(a.images, b.images)
    plain, fast = (eval_loader(source, SHOWN, batch_size=9, cache=c) for c in ("none", cache))
    for a, b in zip(plain, fast, strict=True):
        assert torch.equal(a.images, b.images)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_batches_of_other_channels(kind: type, tmp_path: Path) -> None:
    """Four channels, of 8 bits and of 16, with every augmentation, with and without a cache."""
    rng = np.random.default_rng(0)
    for i in range(10):
        (tmp_path / "data" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        values = rng.integers(0, np.iinfo(kind).max + 1, (20 + i, 30, 4)).astype(kind)
        np.save(tmp_path / "data" / "ab"[i % 2] / f"{i}.npy", values)
    source = of_channels(open_source(str(tmp_path / "data")), 4)
    mean, std = (0.4,) * 4, (0.2,) * 4
    batches = []
    for cache, workers in (("none", 0), ("ram", 1), ("disk", 0)):
        augmentation = Augmentation(
            policy="rand-m9-mstd0.5-inc1", erasing=0.5, scale=(0.5, 1.0), mean=mean, std=std
        )
        options: dict[str, Any] = {"cache": cache, "workers": workers}
        loader = train_loader(source, augmentation, image_size=(16, 24), batch_size=5, **options)
        batches.append(torch.stack([batch.images for batch in loader.epoch(0)]))
        shown = Preprocessing((16, 16), 0.9, "bicubic", mean, std)
        (batch,) = eval_loader(source, shown, batch_size=10, **options)
        batches.append(batch.images)
    for train, judged in zip(batches[::2], batches[1::2], strict=True):
        assert (train.shape, judged.shape) == ((2, 5, 4, 16, 24), (10, 4, 16, 16))
        assert train.dtype == judged.dtype == (torch.uint8 if kind is np.uint8 else torch.float32)
        assert torch.equal(train, batches[0])
        assert torch.equal(judged, batches[1])
        assert judged.float().std() > 20


def test_files_are_read_once(source: ImageSource, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = eval_loader(source, SHOWN, batch_size=9, cache="disk")
    found = reads(source, monkeypatch)
    list(loader)
    list(eval_loader(source, SHOWN, batch_size=9, cache="disk"))  # a later run
    assert not found
    ram = eval_loader(source, SHOWN, batch_size=9, cache="ram")
    assert len(found) == 2 * len(source)  # those that tell the size, and all
    list(ram)
    assert len(found) == 2 * len(source)


def test_what_can_be_reduced_is_not_taken_from_the_cache(source: ImageSource) -> None:
    for i in range(6):
        data, name = source.read(i), source.keys[i]
        whole = decode_image(data, name, fast=True)
        size = whole.shape[:2]
        for least in ((1, 1), (size[0] // 2, 3), (size[0] // 2 + 1, 3), (*size,)):
            image = decode_image(data, name, fast=True, at_least=least)
            assert may_be_reduced(size, least) == (image.shape != whole.shape)


def test_a_changed_image_is_decoded_anew(source: ImageSource, tmp_path: Path) -> None:
    before = decoded_images(source, "disk", fast=False)
    path = tmp_path / "images" / source.keys[4]
    path.write_bytes((tmp_path / "images" / source.keys[5]).read_bytes())
    after = decoded_images(open_source(str(tmp_path / "images")), "disk", fast=False)
    assert before is not None
    assert after is not None
    assert np.array_equal(after.pixels(4), after.pixels(5))
    assert not np.array_equal(before.pixels(4)[:9, :9], after.pixels(4)[:9, :9])
    assert len(kept(tmp_path)) == 2


def test_a_damaged_file_is_named(source: ImageSource, tmp_path: Path) -> None:
    decoded_images(source, "disk", fast=False)
    (path,) = kept(tmp_path)
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)
    again = decoded_images(source, "disk", fast=False)
    assert again is not None
    again.pixels(1)
    with pytest.raises(InputError, match=f"{path} is damaged: delete it"):
        again.pixels(0)
    for cut in (content[:-1], content[:10], content[100:]):
        path.write_bytes(cut)
        with pytest.raises(InputError, match="is damaged"):
            decoded_images(source, "disk", fast=False)


def test_more_than_fits_is_refused(
    source: ImageSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(decode_image(source.read(i), "").nbytes for i in range(len(source)))
    memory = SimpleNamespace(available=size + 1)
    monkeypatch.setattr(cache_module.psutil, "virtual_memory", lambda: memory)
    assert decoded_images(source, "ram", fast=False) is not None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"26 decoded images take .* of memory"):
        decoded_images(source, "ram", fast=False)
    assert decoded_images(source, "auto", fast=False) is None
    monkeypatch.setattr(cache_module, "short_of_space", lambda path, needed: f"{needed} bytes")
    with pytest.raises(InputError, match=f"{size} bytes"):
        decoded_images(source, "disk", fast=False)
    assert not kept(tmp_path)


def test_little_is_kept_unasked(source: ImageSource, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(decode_image(source.read(i), "").nbytes for i in range(len(source)))
    monkeypatch.setattr(cache_module, "_LITTLE", size - 1)
    assert decoded_images(source, "auto", fast=False) is None
    monkeypatch.setattr(cache_module, "_LITTLE", size)
    assert decoded_images(source, "auto", fast=False) is not None


def test_an_image_that_cannot_be_decoded_leaves_nothing(
    source: ImageSource, tmp_path: Path
) -> None:
    path = tmp_path / "images" / source.keys[20]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=f"cannot read image {source.keys[20]}"):
        decoded_images(source, "disk", fast=False)
    assert not kept(tmp_path)


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_what_the_annotator_left_out_is_not_decoded(
    source: ImageSource, make_labels: Callable[..., LabelStore], tmp_path: Path, cache: Cache
) -> None:
    key = source.keys[20]
    (tmp_path / "images" / key).write_bytes(b"no image")
    labels = make_labels(left_out=[key])
    found = train_loader(
        source, Augmentation(), image_size=(8, 8), batch_size=5, labels=[labels], cache=cache
    )
    assert sum(len(batch.keys) for batch in found.epoch(0)) == 25


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="one file for all is Linux's")
def test_spawned_workers_get_the_same_memory(source: ImageSource) -> None:
    images = decoded_images(source, "ram", fast=False)
    assert images is not None
    from multiprocessing.reduction import ForkingPickler

    again = ForkingPickler.loads(ForkingPickler.dumps(images))
    assert again.pixels(3)[0, 0].tolist() == images.pixels(3)[0, 0].tolist()
    assert os.fstat(again._file).st_ino == os.fstat(images._file).st_ino


def test_a_loader_that_takes_the_place_of_another_decodes_nothing(source: ImageSource) -> None:
    first = decoded_images(source, "ram", fast=False)
    assert decoded_images(source, "ram", fast=False) is first
    assert decoded_images(source, "ram", fast=True) is not first
