"""Health tells good labels from nonsense."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel.cli.labels import health as health_verb
from tokenlabel.errors import InputError
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStore, LabelStoreWriter
from tokenlabel.labels.health import Health, better_turn, check_health
from tokenlabel.pictures.health import draw_health

CLASSES, COUNT, CELLS = 4, 24, 8
COLOURS = np.random.default_rng(1).integers(0, 256, (CLASSES, 3))
NAMES = ["ant", "bee", "cat", "dog"]


def scene(number: int) -> torch.Tensor:
    """Class of each cell: mostly the image's own, and a block of the next one in a corner."""
    classes = torch.full((CELLS, CELLS), number % CLASSES)
    classes[1:3, 4:7] = (number + 1) % CLASSES
    return classes


def pixels_of(key: str) -> np.ndarray:
    return COLOURS[scene(int(key)).numpy().repeat(4, 0).repeat(4, 1)].astype(np.uint8)


def health_of(tmp_path, classes_of, strength: float = 5.0, **kwargs) -> Health:
    with LabelStoreWriter(tmp_path / "store", num_classes=CLASSES, codec="exact") as writer:
        for number in range(COUNT):
            logits = torch.nn.functional.one_hot(classes_of(number), CLASSES).permute(2, 0, 1)
            writer.add(str(number), LabelMap.from_logits(logits * strength, 2, Box()))
    truth = {str(number): number % CLASSES for number in range(COUNT)}
    return check_health(LabelStore(tmp_path / "store"), truth, NAMES, pixels_of, **kwargs)


def test_good_labels_pass(tmp_path) -> None:
    health = health_of(tmp_path, scene)
    assert health.warnings == []
    assert health.means["agreement"] == 1
    assert health.means["true_class_cells"] > 58 / 64 - 1e-6
    e = np.exp(5.0)
    assert health.means["top_k_mass"] == pytest.approx((e + 1) / (e + 3), abs=2e-3)
    p = np.array([e, 1, 1, 1]) / (e + 3)
    entropy = -(p * np.log(p)).sum() / np.log(4)
    assert health.means["entropy"] == pytest.approx(entropy, abs=5e-3)
    assert health.never_named == []
    assert health.orientation["as stored"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (lambda c: c.flip(1), "mirrored"),
        (lambda c: c.flip(0), "upside down"),
        (lambda c: c.flip(0, 1), "turned by 180 degrees"),
        (lambda c: c.T, "x and y exchanged"),
    ],
)
def test_turned_labels_are_noticed(tmp_path, turn, name) -> None:
    health = health_of(tmp_path, lambda number: turn(scene(number)))
    assert max(health.orientation, key=health.orientation.get) == name
    assert any(f"better when {name}" in warning for warning in health.warnings)


@pytest.mark.parametrize("seed", range(12))
def test_labels_that_follow_nothing_are_not_called_turned(tmp_path, seed) -> None:
    random = torch.Generator().manual_seed(seed)
    made: dict[int, torch.Tensor] = {}

    def any_scene(number: int) -> torch.Tensor:
        coarse = torch.randint(CLASSES, (3, 3), generator=random)
        made[number] = coarse.repeat_interleave(3, 0).repeat_interleave(3, 1)[:CELLS, :CELLS]
        return made[number]

    health = health_of(tmp_path, any_scene)
    assert health.better_turn is None
    assert not any("better when" in warning for warning in health.warnings)


def test_the_best_of_noise_was_a_tenth_ahead_somewhere(tmp_path) -> None:
    """Without its errors, a mean that is a tenth higher says nothing."""
    gaps = np.random.default_rng(0).normal(0, 0.1, 40)
    fits = {"as stored": np.full(40, 0.09), "mirrored": 0.09 + gaps - gaps.mean() + 0.01}
    assert better_turn({name: values.tolist() for name, values in fits.items()}) is None
    fits["mirrored"] = 0.09 + (gaps - gaps.mean()) / 10 + 0.01
    assert better_turn({name: values.tolist() for name, values in fits.items()}) == "mirrored"
    few = {name: values[:5].tolist() for name, values in fits.items()}
    assert better_turn(few) is None


def test_every_number_has_a_meaning_and_good_labels_a_verdict(tmp_path, capsys) -> None:
    names = [f"{NAMES[number % CLASSES]}/{number}.png" for number in range(COUNT)]
    held_out = {"held_out": {"top1": 0.9, "images": 50}}
    with LabelStoreWriter(tmp_path / "store", num_classes=CLASSES, annotator=held_out) as writer:
        for number, key in enumerate(names):
            path = tmp_path / "photos" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels_of(str(number))).save(path)
            logits = torch.nn.functional.one_hot(scene(number), CLASSES).permute(2, 0, 1)
            writer.add(key, LabelMap.from_logits(logits * 5.0, 2, Box()))
    assert health_verb(labels=str(tmp_path / "store"), data=str(tmp_path / "photos")) == 0
    printed = capsys.readouterr().out.splitlines()
    rows = [re.match(r"\w.*?  +[-+\d.]+  (?=\w+ \w+)", line) for line in printed[:-2]]
    assert len(rows) == 4 + 3 + 5
    assert len({row.end() for row in rows if row}) == 1, "in columns"
    assert printed[-2] == "These labels look usable for training."
    assert printed[-1].startswith("next: ")


def test_labels_of_another_class_order_are_noticed(tmp_path) -> None:
    health = health_of(tmp_path, lambda number: (scene(number) + 2) % CLASSES)
    assert "agree with only 0%" in health.warnings[0]


def test_empty_labels_are_noticed(tmp_path) -> None:
    health = health_of(tmp_path, lambda number: torch.zeros(CELLS, CELLS, dtype=int), 0.01)
    said = " ".join(health.warnings)
    assert "say almost nothing" in said
    assert "3 of the 4 classes of these images are never a cell's best, 'bee' for one" in said


def test_labels_of_other_images_are_refused(tmp_path) -> None:
    health_of(tmp_path, scene)
    with pytest.raises(InputError, match="no label of any of the 1 images"):
        check_health(LabelStore(tmp_path / "store"), {"x": 0}, NAMES)


def test_labels_of_other_classes_are_refused(tmp_path) -> None:
    with LabelStoreWriter(
        tmp_path / "store", num_classes=2, class_names=("ant", "elk"), codec="exact"
    ) as writer:
        writer.add("0", LabelMap.from_logits(torch.randn(2, 3, 3), 1, Box()))
    with pytest.raises(InputError, match="labels 2 classes, 'ant' first; the data set has 4"):
        check_health(LabelStore(tmp_path / "store"), {"0": 0}, NAMES)


def test_a_sample_is_enough_and_is_drawn(tmp_path) -> None:
    health = health_of(tmp_path, scene, sample=5)
    assert health.images == 5
    paths = draw_health(health, tmp_path / "pictures")
    assert len(paths) == 5
    assert all(path.stat().st_size > 1000 for path in paths)


def test_classes_that_the_sample_does_not_hold_are_no_fault(tmp_path) -> None:
    with LabelStoreWriter(tmp_path / "store", num_classes=200) as writer:
        for number in range(8):
            logits = torch.full((200, 2, 2), -9.0)
            logits[number] = 9
            writer.add(str(number), LabelMap.from_logits(logits, 2, Box()))
    names = [str(number) for number in range(200)]
    truth = {str(number): number for number in range(8)} | {"unlabeled": -1}
    health = check_health(LabelStore(tmp_path / "store"), truth, names)
    assert (health.met, health.never_named, health.warnings) == (8, [], [])
    with pytest.raises(InputError, match="labels 200 classes, the data set has 8"):
        check_health(LabelStore(tmp_path / "store"), truth, names[:8])


@pytest.mark.parametrize(
    ("annotator", "gap", "advised"),
    [
        ({"held_out": {"top1": 0.8, "images": 50}}, 0.2, True),
        (
            {"held_out": {"top1": 0.868, "images": 50}},
            0.132,
            False,
        ),  # measured: the best of its data
        ({"held_out": {"top1": 0.8, "images": 50}, "kind": "folds"}, 0.2, False),
        ({}, None, False),
    ],
)
def test_what_was_memorized_is_told(tmp_path, annotator, gap, advised) -> None:
    with LabelStoreWriter(tmp_path / "store", num_classes=CLASSES, annotator=annotator) as writer:
        for number in range(COUNT):
            logits = torch.nn.functional.one_hot(scene(number), CLASSES).permute(2, 0, 1)
            writer.add(str(number), LabelMap.from_logits(logits * 5.0, 2, Box()))
    truth = {str(number): number % CLASSES for number in range(COUNT)}
    health = check_health(LabelStore(tmp_path / "store"), truth, NAMES)
    assert health.memorization_gap == (None if gap is None else pytest.approx(gap))
    assert bool(health.advice) == advised
    assert all(f"a gap of {100 * gap:.0f} points" in line for line in health.advice)
    assert health.warnings == []
    assert health.as_dict()["memorization_gap"] == health.memorization_gap
