"""Images with several classes: from a list to a student, its mean average precision and its answers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import tokenlabel as tl
from tokenlabel.data.matching import in_classes_of
from tokenlabel.data.open import holdout, open_images, open_source
from tokenlabel.data.samples import class_labels
from tokenlabel.data.source import UNLABELED, source_fingerprint
from tokenlabel.errors import InputError
from tokenlabel.evaluation.load import load_classifier
from tokenlabel.evaluation.multi_label import MultiLabelCounts
from tokenlabel.export.timm_folder import export_timm
from tokenlabel.losses import class_loss
from tokenlabel.mixing import Mix
from tokenlabel.runs.open import open_run
from tokenlabel.supervision import METHODS, multi_hot

RED, GREEN = ("red", (200, 30, 30)), ("green", (30, 200, 30))


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 pictures that are red at the left, green at the right, both or, 4 of them, neither."""
    root = tmp_path_factory.mktemp("several")
    rng = np.random.default_rng(0)
    with (root / "images.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "labels", "split"])
        for i in range(36):
            pixels = rng.integers(90, 120, (40, 40, 3)).astype(np.uint8)
            classes = []
            if i % 9 in (0, 1, 2, 3, 4):
                pixels[:, :20] = RED[1]
                classes.append(RED[0])
            if i % 9 in (3, 4, 5, 6, 7):
                pixels[:, 20:] = GREEN[1]
                classes.append(GREEN[0])
            Image.fromarray(pixels).save(root / f"{i:02d}.png")
            split = "val" if i >= 27 else "train"
            table.writerow([f"{i:02d}.png", ";".join(classes), split])
    return root / "images.csv"


def test_a_list_of_several_classes_is_read(listed: Path) -> None:
    source = open_images(str(listed), "train")
    assert source.class_names == ("green", "red")
    assert source.several is not None
    assert source.several[:9] == [(1,), (1,), (1,), (1, 0), (1, 0), (0,), (0,), (0,), ()]
    assert source.found.unlabeled == 3
    assert list(source.labels[:9]) == [1, 1, 1, 1, 1, 0, 0, 0, UNLABELED]
    assert class_labels(source, [0, 3, 8]).tolist() == [[1, -1], [1, 0], [-1, -1]]
    kept, held = holdout(source, 0.3, 0)
    for part in (kept, held):
        places = {key: i for i, key in enumerate(source.keys)}
        assert part.several == [source.several[places[key]] for key in part.keys]
    assert source_fingerprint(kept) != source_fingerprint(held)
    assert in_classes_of(held, source, "held", "all").several == held.several


def test_other_orders_and_numbers_of_classes(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    (tmp_path / "numbers.csv").write_text("path,labels\na.png,2; 0;2\nb.png,\n")
    source = open_source(str(tmp_path / "numbers.csv"))
    assert source.class_names == ("0", "1", "2")
    assert source.several == [(2, 0), ()]
    (tmp_path / "few.csv").write_text("path,labels\na.png,0;2\nb.png,2\n")
    (tmp_path / "names.csv").write_text("path,labels\na.png,one;two\n")
    (tmp_path / "more.csv").write_text("path,labels\na.png,two;zero;one\n")
    moved = in_classes_of(
        open_source(str(tmp_path / "names.csv")), open_source(str(tmp_path / "more.csv")), "", ""
    )
    assert moved.class_names == ("one", "two", "zero")
    assert moved.several == [(0, 1)]


def test_tables_of_lists(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra data: datasets")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "labels": datasets.List(datasets.ClassLabel(names=["ant", "bee", "cow"])),
        }
    )
    rows = {"image": [str(tmp_path / "a.png")] * 2, "labels": [[2, 0], []]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    source = open_source(str(tmp_path / "saved"))
    assert source.class_names == ("ant", "bee", "cow")
    assert source.several == [(2, 0), ()]


def test_the_loss_is_the_binary_cross_entropy_of_each_class() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 5), torch.tensor([[1, 3], [2, -1], [0, -1], [4, 1]])
    truth = multi_hot(labels, 5)
    assert truth.sum(1).tolist() == [2, 1, 1, 2]
    found = class_loss(logits, truth, multi_label=True)
    expected = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum(1).mean()
    torch.testing.assert_close(found, expected)
    mix = Mix.draw(4, (7, 7), generator=torch.Generator().manual_seed(0))
    lam = mix.lam[:, None]
    parts = [
        F.binary_cross_entropy_with_logits(logits, t, reduction="none")
        for t in (truth, truth[mix.partner])
    ]
    expected = (lam * parts[0] + (1 - lam) * parts[1]).sum(1).mean()
    torch.testing.assert_close(class_loss(logits, truth, mix, multi_label=True), expected)
    soft = METHODS["labels"](smoothing=0.1).class_distribution(labels, None, 5)
    torch.testing.assert_close(soft, truth * 0.9 + 0.02)


def precision_of(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """Average precision by its definition."""
    order = scores.argsort(descending=True)
    hits = truth[order].cumsum(0)
    return float((hits / torch.arange(1, len(hits) + 1) * truth[order]).sum() / truth.sum())


def test_average_precision_and_f1() -> None:
    torch.manual_seed(0)
    scores = torch.randn(200, 3) * 3
    accepted = torch.where(torch.rand(200, 3) < 0.3, torch.arange(3), -1)
    accepted[:, 0] = accepted[:, 0].where((accepted >= 0).any(1), 0)  # one at least
    accepted = torch.cat([accepted, torch.full((1, 3), -1)])
    scores = torch.cat([scores, torch.full((1, 3), 99.0)])  # of no class: not judged
    counts = MultiLabelCounts.zeros(3)
    halves = [MultiLabelCounts.zeros(3), MultiLabelCounts.zeros(3)]
    counts.judge(scores, accepted)
    for half, rows in zip(halves, (slice(0, 90), slice(90, None)), strict=True):
        half.judge(scores[rows], accepted[rows])
    summed = [a + b for a, b in zip(halves[0].tensors(), halves[1].tensors(), strict=True)]
    assert MultiLabelCounts(*summed).summary() == counts.summary()
    truth = multi_hot(accepted[:200], 3)
    expected = [precision_of(scores[:200, c], truth[:, c]) for c in range(3)]
    assert counts.average_precision().tolist() == pytest.approx(expected, abs=2e-3)
    assert counts.summary()["map"] == pytest.approx(sum(expected) / 3, abs=2e-3)
    right = ((scores[:200] >= 0) & (truth > 0)).sum(0)
    f1 = 2 * right / ((scores[:200] >= 0).sum(0) + truth.sum(0))
    assert counts.f1().tolist() == pytest.approx(f1.tolist())
    assert counts.total == 200


@pytest.fixture(scope="module")
def trained(listed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that learned the two colors with random token labels beside them."""
    root = tmp_path_factory.mktemp("run")
    source = open_images(str(listed), "train")
    with tl.LabelStoreWriter(root / "labels", num_classes=2) as writer:
        for key in source.keys:
            writer.add(key, tl.LabelMap.from_logits(torch.randn(2, 3, 3), 2, tl.Box()))
    settings = (
        "model.kwargs={}", "augment.policy=null", "augment.erasing=0", "augment.scale=[0.8, 1.0]",
        "augment.hflip=0", "mixing.kind=none", "schedule.warmup_epochs=0", "ema.decay=null",
        "supervision.class_target=blend", "schedule.cooldown_epochs=0",
        "augment.crop_pct=1.0", "validate_every=12", "engine.precision=fp32",
    )  # fmt: skip
    result = tl.train(
        data=str(listed), labels=str(root / "labels"), output=root / "student", model="test_vit",
        image_size=32, batch_size=8, epochs=12, workers=0, scale="none",
        settings=(*settings, "optimizer.lr=3e-3"),
    )  # fmt: skip
    assert result.results["best_map"] > 0.9
    assert {"val/map", "val/f1", "val/loss"} <= set(result.results["measures"])
    learned: Any = open_run(root / "student").recipe.supervision
    assert learned.class_target == "ground-truth"  # no annotator's share among several classes
    return root / "student"


def test_a_student_learns_several_classes(listed: Path, trained: Path, tmp_path: Path) -> None:
    result = tl.evaluate(data=str(listed), checkpoint=trained, workers=0, device="cpu")
    assert set(result.rules) == {"class"}
    assert result.map > 0.9
    assert result.images == 8  # one of the nine has no class
    assert result.folder is not None
    rows = list(csv.DictReader((result.folder / "classes.csv").open()))
    assert [row["class"] for row in rows] == ["green", "red"]
    assert not (result.folder / "confusion.png").exists()
    model = tl.load(trained, device="cpu")
    both, red = str(listed.parent / "03.png"), str(listed.parent / "00.png")
    found = [set(prediction.labels) for prediction in model.predict([both, red])]
    assert found == [{"red", "green"}, {"red"}]
    assert model.predict(red, threshold=0.9999)[0].answers == ()
    export_timm(load_classifier(trained), tmp_path / "timm")
    again = load_classifier(tmp_path / "timm")
    assert again.multi_label
    assert set(again.predict(both)[0].labels) == {"red", "green"}


def test_what_does_not_go_with_several_classes(listed: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {
        "data": str(listed), "model": "test_vit", "image_size": 32, "batch_size": 8, "epochs": 1,
        "output": tmp_path / "run", "scale": "none",
    }  # fmt: skip
    with pytest.raises(InputError, match="class_weights is of images with one class"):
        tl.train(**common, supervision="labels", settings=("supervision.class_weights=balanced",))
    with pytest.raises(InputError, match="class head learns these alone"):
        tl.train(**common, supervision="distillation", labels="anywhere")
    with pytest.raises(InputError, match="class head learns these alone"):
        tl.train(**common, labels="anywhere", settings=("supervision.class_target=annotator",))
    assert not (tmp_path / "run").exists()


def test_teach_shares_the_mass_among_the_classes(listed: Path, tmp_path: Path) -> None:
    """An annotator tells classes apart; where an image has two, each is half right."""
    taught = tl.teach(
        data=str(listed), output=tmp_path / "taught", model="test_vit", pretrained=False,
        image_size=32, batch_size=8, epochs=8, lr=3e-3, device="cpu", dtype="float32",
    )  # fmt: skip
    assert taught.accuracy is not None
    assert taught.accuracy > 0.5
