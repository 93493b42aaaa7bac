"""Overlapping windows: every cell is counted, and each is the mean of what overlaps it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenlabel.geometry.overlap import interval_shares
from tokenlabel.geometry.windows import WindowMean, window_starts

SIDES = st.integers(1, 40)


@pytest.mark.parametrize(
    ("length", "starts"),
    [(512, [0]), (300, [0]), (513, [0, 1]), (683, [0, 171]), (1024, [0, 341, 512])],
)
def test_windows_end_with_the_axis(length: int, starts: list[int]) -> None:
    assert window_starts(length, min(512, length), 341) == starts


@given(length=SIDES, window=SIDES, stride=SIDES)
def test_windows_cover_an_axis_and_stay_within_it(length: int, window: int, stride: int) -> None:
    stride = min(stride, window)
    starts = window_starts(length, window, stride)
    covered = {pixel for start in starts for pixel in range(start, start + window)}
    assert set(range(length)) <= covered
    assert starts == sorted(set(starts))
    if window <= length:
        assert max(covered) < length


def one_by_one(
    length: int, cells: int, windows: list[tuple[int, int, torch.Tensor]]
) -> torch.Tensor:
    """The definition, along one axis: every cell of every window, by the length that it shares."""
    means = []
    for cell in range(cells):
        low, high = cell * length / cells, (cell + 1) * length / cells
        total = weight = 0.0
        for start, window, values in windows:
            for i, value in enumerate(values.tolist()):
                first = start + i * window / len(values)
                last = start + (i + 1) * window / len(values)
                shared = max(0.0, min(last, high) - max(first, low))
                total, weight = total + shared * value, weight + shared
        means.append(total / weight)
    return torch.tensor(means)


@given(
    length=st.integers(4, 40),
    window=SIDES,
    stride=SIDES,
    parts=st.integers(1, 9),
    cells=st.integers(1, 30),
    seed=st.integers(0, 9),
)
def test_cells_are_means_of_what_overlaps_them(
    length: int, window: int, stride: int, parts: int, cells: int, seed: int
) -> None:
    window = min(window, length)
    generator = torch.Generator().manual_seed(seed)
    windows = [
        (start, window, torch.rand(parts, generator=generator))
        for start in window_starts(length, window, min(stride, window))
    ]
    for turn in (False, True):  # the axis as columns and as rows
        spans = ((0, length), (0, 1)) if turn else ((0, 1), (0, length))
        mean = WindowMean(*spans, (cells, 1) if turn else (1, cells))
        for start, side, values in windows:
            if turn:
                mean.add(values[None, :, None], start, 0, (side, 1))
            else:
                mean.add(values[None, None], 0, start, (1, side))
        torch.testing.assert_close(mean.mean().flatten(), one_by_one(length, cells, windows))


def test_matching_cells_are_copied_to_the_last_bit() -> None:
    values = torch.rand(3, 8, 12)
    mean = WindowMean((0, 64), (0, 96), (8, 12))
    for top in (0, 32):
        for left in (0, 32, 64):
            part = values[:, top // 8 : top // 8 + 4, left // 8 : left // 8 + 4]
            mean.add(part, top, left, (32, 32))
    assert torch.equal(mean.mean(), values)


def test_a_region_takes_its_own_part_of_a_window() -> None:
    values = torch.rand(2, 6, 6)
    mean = WindowMean((2, 5), (1, 6), (3, 5))
    mean.add(values, 0, 0, (6, 6))
    assert torch.equal(mean.mean(), values[:, 2:5, 1:6])


@pytest.mark.parametrize("parts", [1, 3, 7, 32])
def test_shares_of_parts_that_fill_the_axis_sum_to_one(parts: int) -> None:
    shares = interval_shares((0, 1), 5, (0, 1), parts)
    assert shares.shape == (5, parts)
    assert shares.sum(1) == pytest.approx(1)
    assert interval_shares((0, 1), 4, (0.25, 0.625), 1)[:, 0] == pytest.approx([0, 1, 0.5, 0])
