"""Scenes without a mask: labels of a segmentation network, through the same view, into the loss."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tokenlabel as tl
from tokenlabel.api import segment
from tokenlabel.data.order import Request
from tokenlabel.data.rules import DecodeRules
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelMap, LabelStore
from tokenlabel.segmentation.account import account_of
from tokenlabel.segmentation.augment import PairAugmentation
from tokenlabel.segmentation.classes import IGNORED
from tokenlabel.segmentation.dataset import Samples, soft_scenes
from tokenlabel.segmentation.pairs import open_pairs
from tokenlabel.segmentation.task import class_weights
from tokenlabel.segmentation.trained import load_segmenter

SMALL = (
    "augment.crop=[32, 32]", "augment.color=false", "test.short_side=48", "test.window=null",
    "model.kwargs={channels: [8, 8, 16, 16], stem_width: 8}", "model.channels=8",
    "schedule.batch_size=4", "schedule.warmup_updates=0", "engine.precision=fp32",
    "data.workers=0", "trackers=[]",
)  # fmt: skip


def train(
    scenes: Path, output: Path, *more: str, updates: int = 3, labels: Path | None = None
) -> None:
    segment.train(
        data=scenes, output=output, recipe="camvid_cpu", updates=updates, labels=labels,
        settings=(*SMALL, *more),
    )  # fmt: skip


def label(scenes: Path, run: Path, output: Path) -> LabelStore:
    tl.annotate(
        data=str(scenes / "images" / "training"), output=output,
        annotator={"kind": "segmenter", "model": str(run), "grid": [12, 16], "top_k": 3},
    )  # fmt: skip
    return LabelStore(output)


def test_soft_labels_see_the_view_of_a_mask(scenes: Path) -> None:
    """A label map that says of every pixel what its mask says, in the same random views."""
    pairs = open_pairs(scenes, "training")
    augment = PairAugmentation(crop=(32, 48), short_side=48, scale=(0.6, 1.5))
    values = np.asarray(Image.open(pairs.items[0].mask)).astype(np.int16) - 1
    values[values < 0] = 0
    image = np.asarray(Image.open(pairs.items[0].image))
    scores = torch.full((1, *values.shape), 9.0)
    label_map = LabelMap(scores, torch.from_numpy(values)[None].long(), scores[0], tl.Box(), 3)
    outside, mirrored = 0, []
    for seed in range(12):
        pixels, labels = augment(image, values, np.random.default_rng(seed))
        seen, soft = augment.soft(image, label_map, np.random.default_rng(seed))
        assert np.array_equal(pixels, seen)
        inside = torch.from_numpy(labels != IGNORED).float()
        areas = torch.stack([torch.from_numpy(labels == c).float() for c in range(3)])
        covered = torch.nn.functional.avg_pool2d(inside[None], 4)[0]
        wanted = torch.nn.functional.avg_pool2d(areas, 4)
        whole = covered == 1
        assert (soft - wanted)[
            :, whole
        ].abs().mean() < 0.04  # cells average, pixels are the nearest
        mirrored.append(float((soft.flip(2) - wanted)[:, whole].abs().mean()))
        assert (soft.sum(0)[whole] - 1).abs().max() < 1e-4
        assert (soft.sum(0)[covered == 0] == 0).all()
        outside += int((covered == 0).sum())
    assert outside
    assert max(mirrored) > 0.15


def test_a_network_labels_what_has_no_mask_and_another_learns_from_it(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4, 8):
        (scenes / "annotations" / "training" / f"s{number}.png").unlink()
    train(scenes, tmp_path / "few")
    store = label(scenes, tmp_path / "few", tmp_path / "labels")
    assert len(store) == 8
    assert store.manifest.class_names == ("wall", "grass", "pool")
    assert store.manifest.annotator["kind"] == "segmenter"
    trained = load_segmenter(tmp_path / "few", ["test.logit_adjustment=0"])
    weighted = trained.segmenter(torch.device("cpu"))
    segmenter = load_segmenter(tmp_path / "few").segmenter(torch.device("cpu"))
    image = np.asarray(Image.open(scenes / "images" / "training" / "s5.png"))
    cells, kept = segmenter.cells(image, (12, 16)), store["s5.png"]
    assert torch.allclose(cells.sum(0), torch.ones(12, 16), atol=1e-5)
    assert kept.grid == (12, 16)
    found = torch.zeros_like(cells).scatter_(0, kept.classes, kept.probabilities())
    assert torch.allclose(found, cells, atol=0.01)
    # the class weights of the training are in one and not in the other
    counts = account_of(open_pairs(scenes, "training")).pixels
    weights = class_weights(counts, 0.5)
    assert weights.max() > 1.1 * weights.min()
    assert torch.allclose(trained.model.log_weights.exp(), weights)
    pixels = torch.rand(1, 3, 32, 32)
    even, tilted = (one.model(pixels).softmax(1) for one in (segmenter, weighted))
    tilted = tilted / weights[:, None, None]
    assert torch.allclose(even, tilted / tilted.sum(1, keepdim=True), atol=1e-5)
    (scenes / "images" / "training" / "s7.png").rename(scenes / "images" / "training" / "new.png")
    capsys.readouterr()
    train(scenes, tmp_path / "more", labels=tmp_path / "labels")
    said = " ".join(capsys.readouterr().err.split())
    assert "training: 3 scenes without a mask have soft labels, 1 have neither" in said
    facts = json.loads((tmp_path / "more" / "environment.json").read_text())
    assert (facts["images"], facts["soft"]) == (7, 3)
    assert facts["left_out"] == {"images without a mask or label": 1}
    assert facts["labels"]["index_sha256"] == store.manifest.index_sha256
    (tmp_path / "more" / "results.json").unlink()
    (scenes / "images" / "training" / "s6.png").rename(scenes / "images" / "training" / "other.png")
    with pytest.raises(InputError, match="started with other images with soft labels"):
        train(scenes, tmp_path / "more", labels=tmp_path / "labels")
    with pytest.raises(InputError, match="started with other images with soft labels"):
        train(scenes, tmp_path / "more")


def test_a_network_labels_images_as_those_of_its_training_were_read(
    scenes: Path, tmp_path: Path
) -> None:
    """Their channels, range and orientation: a dark image alone would be taken for a bright one."""
    for file in (scenes / "images").rglob("*.png"):
        colors = np.asarray(Image.open(file).convert("RGB")).astype(np.uint16) * 16
        np.save(file.with_suffix(".npy"), np.concatenate([colors[..., :1], colors], 2))
        file.unlink()
    own = ("data.channels=[1, 2, 3]", "data.orientation=apply", "loss.class_balance=0")
    train(scenes, tmp_path / "run", *own)
    images = scenes / "images" / "training"
    dark = np.load(images / "s0.npy") // 16
    for file in images.iterdir():
        file.unlink()
    np.save(images / "dark.npy", dark)
    store = label(scenes, tmp_path / "run", tmp_path / "labels")
    decode = store.manifest.dataset["decode"]
    assert (decode["integers"], decode["orientation"]) == ([0, 4095], "apply")
    assert decode["chosen"] == [1, 2, 3]
    pixels = dark[..., 1:].astype(np.float32) * (255 / 4095)
    cells = load_segmenter(tmp_path / "run").segmenter(torch.device("cpu")).cells(pixels, (12, 16))
    kept = store["dark.npy"]
    found = torch.zeros_like(cells).scatter_(0, kept.classes, kept.probabilities())
    assert torch.allclose(found, cells, atol=0.01)


def test_unsure_regions_may_be_left_out(scenes: Path, tmp_path: Path) -> None:
    train(scenes, tmp_path / "run")
    store = label(scenes, tmp_path / "run", tmp_path / "labels")
    for number in range(1, 8):
        (scenes / "annotations" / "training" / f"s{number}.png").unlink()
    pairs = open_pairs(scenes, "training")
    augment = PairAugmentation(crop=(32, 32), short_side=48)
    requests = [(0, 0, 0), (1, 0, 0), (5, 0, 0)]

    def soft(threshold: float) -> torch.Tensor:
        samples = Samples(pairs, augment, 0, None, soft_scenes(pairs, store, threshold))
        assert len(samples) == 8
        batch = samples.make([Request(*request) for request in requests])
        assert batch.soft is not None
        assert (batch.labels[0] != IGNORED).any()
        assert (batch.labels[1:] == IGNORED).all()
        assert (batch.soft[0] == 0).all()
        return batch.soft

    everything, none = soft(0.0), soft(1.0)
    sure = soft(float(everything[1:].amax(1).median()))
    assert 0 < int((sure.sum(1) > 0).sum()) < int((everything.sum(1) > 0).sum())
    assert (none == 0).all()
    kept = sure.sum(1, keepdim=True) > 0
    assert torch.equal(sure, everything * kept)  # as they are, not sharpened


def test_labels_of_other_classes_or_images_are_refused(scenes: Path, tmp_path: Path) -> None:
    train(scenes, tmp_path / "run")
    store, pairs = (
        label(scenes, tmp_path / "run", tmp_path / "labels"),
        open_pairs(scenes, "training"),
    )
    with pytest.raises(InputError, match="none of 0 scenes without a mask has a label"):
        soft_scenes(pairs, store)
    unknown = dataclasses.replace(pairs.items[0], key="new.png")
    with pytest.raises(InputError, match=r"none of 1 scenes .* such as new\.png"):
        soft_scenes(dataclasses.replace(pairs, unmasked=(unknown,)), store)
    pairs = dataclasses.replace(pairs, unmasked=pairs.items)
    assert len(soft_scenes(pairs, store).scenes) == 8
    turned = dataclasses.replace(pairs, rules=DecodeRules(orientation="apply"))
    with pytest.raises(InputError, match="made with EXIF orientation 'ignore'"):
        soft_scenes(turned, store)
    store.manifest = store.manifest.model_copy(update={"vocabulary_sha256": "0"})
    with pytest.raises(InputError, match="are of words"):
        soft_scenes(pairs, store)
    (scenes / "classes.json").write_text('["wall", "grass", "lake"]')
    with pytest.raises(InputError, match="of 3 classes, the masks of 3, or of other names"):
        train(scenes, tmp_path / "next", labels=tmp_path / "labels")
    assert not (tmp_path / "next").exists()


def test_token_labels_from_masks_train_a_student_that_starts_a_network(
    scenes: Path, tmp_path: Path
) -> None:
    """From masks to labels, to a student without image classes, and back to segmentation."""
    images = scenes / "images"
    tl.annotate(
        data=str(images / "training"), output=tmp_path / "labels",
        annotator={"kind": "masks", "folder": str(scenes / "annotations" / "training"),
                   "classes": str(scenes), "first_value": 1, "ignored_values": [0],
                   "grid": [8, 8]},
    )  # fmt: skip
    store = LabelStore(tmp_path / "labels")
    assert store.manifest.class_names == ("wall", "grass", "pool")
    student = tl.train(
        data=str(images / "training"), labels=(str(tmp_path / "labels"),), model="resnet10t",
        output=tmp_path / "student", image_size=32, max_steps=2, batch_size=4, workers=0,
        settings=("model.kwargs={channels: [8, 8, 16, 16], stem_width: 8}", "trackers=[]",
                  "engine.precision=fp32", "engine.device=cpu", "data.holdout=0"),
    ).folder  # fmt: skip
    segment.train(
        data=scenes, output=tmp_path / "run", recipe="camvid_cpu", weights=str(student), updates=3,
        settings=(*SMALL, "optimizer.lr=1e-9"),
    )  # fmt: skip
    trained = load_segmenter(tmp_path / "run").model.state_dict()
    began = load_file(next((student / "checkpoints").glob("step-*/ema.safetensors")))
    for name in ("conv1.0.weight", "layer4.0.conv2.weight"):
        assert torch.allclose(
            trained[f"pyramid.backbone.{name}"], began[f"backbone.{name}"], atol=1e-6
        )


def test_few_masks_are_shown_more_often(scenes: Path, tmp_path: Path) -> None:
    for number in range(2, 8):
        (scenes / "annotations" / "training" / f"s{number}.png").unlink()
    train(scenes, tmp_path / "few", "schedule.batch_size=2")
    store = label(scenes, tmp_path / "few", tmp_path / "labels")
    pairs = open_pairs(scenes, "training")
    augment = PairAugmentation(crop=(32, 32), short_side=48, color=False)
    samples = Samples(pairs, augment, soft=soft_scenes(pairs, store, mask_repeats=3))
    batch = samples.make([Request(number, 0, 0) for number in range(len(samples))])
    assert batch.keys[:6] == batch.keys[:2] * 3
    assert len(set(batch.keys[6:])) == 6
    assert batch.soft is not None
    assert batch.soft.flatten(1).sum(1).gt(0).tolist() == [False] * 6 + [True] * 6
    assert (batch.labels[:6] != IGNORED).flatten(1).any(1).all()
    assert not torch.equal(batch.images[0], batch.images[2]), "repetitions are other views"
    train(scenes, tmp_path / "more", "data.mask_repeats=3", labels=tmp_path / "labels")
    facts = json.loads((tmp_path / "more" / "environment.json").read_text())
    assert (facts["images"], facts["soft"]) == (8, 6)
