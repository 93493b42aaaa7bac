"""A class has one color in every picture."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap
from tokenlabel.pictures.colors import class_colors, hex_colors, visible_classes


def test_a_color_follows_from_the_number_alone() -> None:
    np.testing.assert_array_equal(class_colors(1000)[:7], class_colors(7))
    assert (class_colors(1000) >= 0).all()
    assert (class_colors(1000) <= 1).all()


def test_any_ten_successive_classes_can_be_told_apart() -> None:
    for start in (0, 40, 985):
        part = class_colors(1000)[start : start + 10]
        gaps = [np.abs(a - b).sum() for a, b in itertools.combinations(part, 2)]
        assert min(gaps) > 0.15


def test_things_with_a_natural_color_have_it() -> None:
    colors = class_colors(3, ("Sky", "zebra", "traffic_light"))
    assert colors[0].argmax() == 2
    np.testing.assert_array_equal(colors[1], class_colors(3)[1])
    assert colors[2].argmax() == 0


def test_pages_write_the_same_colors() -> None:
    for text, color in zip(hex_colors(30), class_colors(30), strict=True):
        assert [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)] == pytest.approx(color, abs=2e-3)


def test_only_visible_classes_are_listed_the_largest_first() -> None:
    """Cells count as they are sure; a class of one unsure cell in many is not seen."""
    classes = torch.tensor([[900] * 6 + [17] * 3 + [3]])[None]
    probability = torch.tensor([[0.9] * 6 + [0.9] * 3 + [0.1]])[None]
    label_map = LabelMap(probability.log(), classes, torch.zeros(classes.shape[1:]), Box(), 1000)
    assert visible_classes([label_map]) == [900, 17]
    assert visible_classes([label_map], limit=1) == [900]
    assert visible_classes([]) == []
