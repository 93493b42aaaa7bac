"""Batches depend on (seed, epoch, step, rank) alone; mistakes are found before the first step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform

from tokenlabel.data.augment import Augmentation
from tokenlabel.data.batch import Batch
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.loader import Loader, eval_loader, train_loader
from tokenlabel.data.open import open_source
from tokenlabel.data.order import BatchOrder, Request
from tokenlabel.data.samples import BatchMaker, Samples, Targets
from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError
from tokenlabel.geometry import render
from tokenlabel.labels import LabelStore

MakeLabels = Callable[..., LabelStore]
RICH = Augmentation(policy="rand-m9-mstd0.5-inc1", erasing=0.5, vflip=0.3)


def shown(size: tuple[int, int]) -> Preprocessing:
    return Preprocessing(size, 0.9, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def loader(source: ImageSource, labels: LabelStore | None = None, **options: Any) -> Loader:
    targets = Targets(labels=labels, grid=(4, 3)) if labels is not None else None
    settings = {"image_size": (32, 24), "batch_size": 4, "seed": 7} | options
    return train_loader(source, RICH, targets=targets, **settings)


def equal(a: Batch, b: Batch) -> bool:
    assert (a.target is None) == (b.target is None)
    pairs = [(a.images, b.images), (a.labels, b.labels)]
    if a.target is not None and b.target is not None:
        pairs += [(a.target.dense(), b.target.dense()), (a.target.mask, b.target.mask)]
    return a.keys == b.keys and all(torch.equal(x, y) for x, y in pairs)


def test_a_batch_is_what_it_says(source: ImageSource, make_labels: MakeLabels) -> None:
    batches = list(loader(source, make_labels()))
    assert len(batches) == len(loader(source)) == 26 // 4
    for batch in batches:
        assert batch.images.shape == (4, 3, 32, 24)
        assert batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        index = [list(source.keys).index(key) for key in batch.keys]
        assert batch.labels.tolist() == [source.labels[i] for i in index]
        assert batch.target is not None
        assert batch.target.grid == (4, 3)
        assert batch.target.mask.shape == (4, 13)
        torch.testing.assert_close(batch.target.dense().sum(2), torch.ones(4, 13))
    keys = Counter(key for batch in batches for key in batch.keys)
    assert max(keys.values()) == 1


def test_nothing_but_seed_and_epoch_matters(source: ImageSource, make_labels: MakeLabels) -> None:
    labels = make_labels()
    expected = list(loader(source, labels).epoch(3))
    with_workers = loader(source, labels, workers=2)
    torch.manual_seed(1)
    for repeat in range(2):  # the second time with workers that have already served an epoch
        again = list(with_workers.epoch(3))
        assert len(again) == len(expected), repeat
        assert all(map(equal, again, expected))
    resumed = list(with_workers.epoch(3, start=4))
    assert all(map(equal, resumed, expected[4:]))
    assert len(resumed) == 2
    del with_workers
    for other in (loader(source, labels).epoch(4), loader(source, labels, seed=8).epoch(3)):
        assert not any(map(equal, other, expected))


def test_ranks_share_what_one_would_do(source: ImageSource) -> None:
    alone = list(loader(source, batch_size=4).epoch(1))
    ranks = [list(loader(source, batch_size=2, rank=rank, world=2).epoch(1)) for rank in (0, 1)]
    for step, batch in enumerate(alone):
        parts = [rank[step] for rank in ranks]
        assert batch.keys == parts[0].keys + parts[1].keys
        assert torch.equal(batch.images, torch.cat([part.images for part in parts]))


def test_the_global_generators_are_left_alone(source: ImageSource) -> None:
    import random

    state, python_state = torch.get_rng_state(), random.getstate()
    list(loader(source))
    assert torch.equal(state, torch.get_rng_state())
    assert python_state == random.getstate()


def test_repeated_augmentation_keeps_the_length_of_an_epoch(source: ImageSource) -> None:
    batches = list(loader(source, repeats=2))
    assert len(batches) == len(loader(source))
    keys = [key for batch in batches for key in batch.keys]
    images = torch.cat([batch.images for batch in batches])
    assert keys[:8] == keys[16:24]
    assert len(set(keys[:16])) == 16  # neighbours, who are mixed, are different images
    assert not torch.equal(images[0], images[16])


def test_tokens_under_erased_boxes_lose_their_target_if_asked(
    source: ImageSource, make_labels: MakeLabels
) -> None:
    augmentation = Augmentation(erasing=1.0, scale=(1.0, 1.0), erasing_mode="const")
    plain = Targets(labels=make_labels(), grid=(8, 6))
    options: dict[str, Any] = {"image_size": (32, 24), "batch_size": 8}
    kept = next(iter(train_loader(source, augmentation, targets=plain, **options)))
    strict = replace(plain, erased_tokens_train=False)
    dropped = next(iter(train_loader(source, augmentation, targets=strict, **options)))
    assert kept.target is not None
    assert dropped.target is not None
    assert kept.target.mask.all()
    constant = torch.tensor(augmentation.fill, dtype=torch.uint8)[None, :, None, None]
    pixels = (dropped.images == constant).all(1).float()  # [B, 32, 24]
    share = torch.nn.functional.avg_pool2d(pixels, 4).flatten(1)
    mask = dropped.target.mask
    assert mask[:, 0].all()
    assert torch.equal(mask[:, 1:], share <= 0.5)
    assert not mask.all()


def test_evaluation_shows_what_timm_shows(source: ImageSource) -> None:
    for size in (32, 48):
        transform = create_transform((3, size, size), crop_pct=0.9, interpolation="bicubic")
        batches = list(eval_loader(source, shown((size, size)), batch_size=10))
        assert [len(batch) for batch in batches] == [10, 10, 6]
        assert [key for batch in batches for key in batch.keys] == list(source.keys)
        ours = shown((size, size)).normalize(torch.cat([batch.images for batch in batches]))
        for i in range(len(source)):
            image = Image.open(source.root / source.keys[i])  # type: ignore[attr-defined]
            assert (ours[i] - transform(image)).abs().max() < 1.5 / 255 / 0.224
    ranks = [eval_loader(source, shown((8, 8)), batch_size=10, rank=r, world=2) for r in (0, 1)]
    assert [len(rank) for rank in ranks] == [2, 1]
    assert sum(len(batch) for rank in ranks for batch in rank) == len(source)


def test_labels_of_other_images_are_refused(source: ImageSource, make_labels: MakeLabels) -> None:
    key = source.keys[3]
    with pytest.raises(
        InputError, match=f"1 of 26 images have no label in this store of 25: first {key}"
    ):
        loader(source, make_labels(missing=[key]))
    none = "none of the 26 images has a label in this store of 0: first"
    with pytest.raises(InputError, match=none):
        loader(source, make_labels(missing=source.keys))
    without = loader(source, make_labels(left_out=[key]), batch_size=1)
    assert {key for batch in without for key in batch.keys} == set(source.keys) - {key}
    with pytest.raises(InputError, match="'class1' is number 0 of the labels but 1 of the images"):
        loader(source, make_labels(class_names=("class1", "class0", "class2", "class3")))
    loader(source, make_labels(class_names=("a bird", "a cat", "a dog", "a fish")))
    with pytest.raises(InputError, match="labels are of 1000 classes, the images of 4"):
        loader(source, make_labels(classes=1000))
    with pytest.raises(InputError, match="26 images are fewer than one batch of 32"):
        loader(source, batch_size=32)


def test_batches_reach_the_caller_as_they_were_made(
    source: ImageSource, make_labels: MakeLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Batch] = []
    make = Samples.make
    monkeypatch.setattr(Samples, "make", lambda *args: made.append(make(*args)) or made[-1])
    for batch in loader(source, make_labels()):
        assert batch is made[-1]  # nothing was collated


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_in_one_line(source: ImageSource, workers: int) -> None:
    path: Path = source.root / source.keys[5]  # type: ignore[attr-defined]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=rf"^cannot read image {source.keys[5]}[^\n]*$"):
        list(loader(source, batch_size=1, workers=workers))


def test_a_signal_to_the_run_leaves_its_workers_alone(source: ImageSource) -> None:
    others = set(multiprocessing.active_children())
    batches = iter(loader(source, batch_size=1, workers=1))
    drawn = [next(batches)]
    (worker,) = set(multiprocessing.active_children()) - others
    assert worker.pid is not None
    assert os.getpgid(worker.pid) != os.getpgid(0)  # what a terminal or scheduler ends as one
    os.kill(worker.pid, signal.SIGINT)
    drawn += batches
    assert len(drawn) == len(source)


class _Endless(BatchMaker[None]):
    """Takes a minute for a batch."""

    def make(self, _requests: list[Request]) -> None:
        time.sleep(60)


def _draw_for_ever(method: str, source: ImageSource, workers: Connection) -> None:
    multiprocessing.set_start_method(method, force=True)
    if method == "fork":
        order = BatchOrder(np.arange(8), 1)
        batches: Any = iter(Loader(_Endless(), order, workers=2, pin=False)._batches)
    else:
        batches = eval_loader(source, shown((16, 16)), batch_size=1, workers=2).epoch(0)
        next(batches)
    workers.send([worker.pid for worker in multiprocessing.active_children()])
    time.sleep(60)


@pytest.mark.parametrize(
    "method",
    ["fork", *(pytest.param(m, marks=pytest.mark.slow) for m in ("forkserver", "spawn"))],
)
def test_workers_end_with_a_killed_run(method: str, source: ImageSource) -> None:
    """Also those that are busy, and those whose parent is a server."""
    mine, other = multiprocessing.Pipe()
    run = multiprocessing.get_context("fork").Process(
        target=_draw_for_ever, args=(method, source, other)
    )
    run.start()
    workers = mine.recv()
    assert len(workers) == 2
    run.kill()
    run.join()
    deadline = time.monotonic() + 10
    while left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"{left} go on"
        time.sleep(0.1)


def test_no_more_workers_than_processors(source: ImageSource, recwarn) -> None:
    made = loader(source, workers=1000)
    assert made._batches.num_workers == (os.cpu_count() or 1)


def test_grey_and_transparent_images_make_batches(tmp_path: Path) -> None:
    for i, mode in enumerate(["L", "RGBA", "P", "CMYK", "1"]):
        path = tmp_path / "one" / f"{i}.{'jpg' if mode == 'CMYK' else 'png'}"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 7), (90, 60, 30)).convert(mode).save(path)
    batch = next(iter(eval_loader(open_source(str(tmp_path)), shown((16, 16)), batch_size=5)))
    assert batch.images.shape == (5, 3, 16, 16)


def test_the_clean_view_is_the_same_geometry_without_colors_and_erasing(
    source: ImageSource,
) -> None:
    both, plain = loader(source, clean=True), loader(source)
    for batch, usual in zip(both, plain, strict=True):
        assert torch.equal(batch.images, usual.images)
        assert usual.clean is None
        assert batch.clean is not None
        assert batch.clean.shape == batch.images.shape
    samples = both.samples
    assert isinstance(samples, Samples)
    request = next(iter(both.order))[0]
    drawn, image = samples.draw(request)
    expected = render(image, drawn.view, (32, 24), drawn.interpolation, RICH.fill)
    clean = samples.__getitems__([request])
    assert isinstance(clean, Batch)
    assert clean.clean is not None
    assert torch.equal(clean.clean[0].permute(1, 2, 0), torch.from_numpy(expected))


@pytest.mark.parametrize("channels", [1, 4])
def test_models_of_other_channels_have_the_mean_of_gray(channels: int) -> None:
    model = timm.create_model("test_vit", in_chans=channels)
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.1, 0.2, 0.6), "std": (0.1, 0.1, 0.4)}
    found = Preprocessing.of_timm(model)
    assert found.channels == channels
    assert found.mean == (pytest.approx(0.3),) * channels
    assert found.std == (pytest.approx(0.2),) * channels
    assert found.normalize(torch.zeros(2, channels, 3, 3)).shape == (2, channels, 3, 3)
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.5,) * (channels + 3)}
    with pytest.raises(InputError, match=f"must be {channels} numbers each"):
        Preprocessing.of_timm(model)
    with pytest.raises(InputError, match=f"set in_chans={channels}"):
        found.require_channels(3)
