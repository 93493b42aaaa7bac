"""Codecs keep what they promise, for maps of any shape."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap
from tokenlabel.labels.codec import decode, encode


@st.composite
def label_maps(draw: st.DrawFn) -> LabelMap:
    grid = draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    k = draw(st.integers(1, 6))
    spread = draw(st.sampled_from([6, 300, 70_000, 2**31]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    first = torch.randint(0, spread - k + 1, grid, generator=generator)
    # K different ids a cell, in no particular order
    order = torch.stack([torch.randperm(k, generator=generator) for _ in range(first.numel())])
    classes = first + order.T.reshape(k, *grid)
    scores = torch.randn(k, *grid, generator=generator) * draw(st.sampled_from([0.0, 1.0, 8.0]))
    scores = scores.sort(0, descending=True).values.half().float()
    normalizer = None
    if draw(st.booleans()):
        normalizer = scores.logsumexp(0) + torch.rand(grid, generator=generator)
    extent = draw(st.sampled_from([Box(), Box(0.1, 0.0, 0.9, 1.0), Box(-0.25, 0, 1.25, 1)]))
    return LabelMap(scores, classes, normalizer, extent, spread)


@settings(max_examples=60, deadline=None)
@given(label_maps(), st.sampled_from(["exact", "raw"]))
def test_exact_and_raw_are_lossless_for_float16_scores(label_map: LabelMap, codec: str) -> None:
    back = decode(encode(label_map, codec), codec, label_map.num_classes)
    assert torch.equal(back.scores, label_map.scores)
    assert torch.equal(back.classes, label_map.classes)
    assert back.extent == label_map.extent
    assert (back.log_normalizer is None) == (label_map.log_normalizer is None)
    if label_map.log_normalizer is not None:
        assert torch.equal(back.log_normalizer, label_map.log_normalizer)


@settings(max_examples=100, deadline=None)
@given(label_maps())
def test_compact_errs_no_more_than_it_says(label_map: LabelMap) -> None:
    back = decode(encode(label_map, "compact"), "compact", label_map.num_classes)
    assert back.extent == label_map.extent
    was, now = _by_class(label_map), _by_class(back)
    assert torch.equal(was[0], now[0])  # the same classes in each cell
    error = (was[1] - now[1]).abs()
    assert (error <= was[1].sqrt() / 255 + 4e-6).all()
    assert (error.sum(0) / 2 <= label_map.k**0.5 / 510 + 2e-6 * label_map.k).all()


@settings(max_examples=40, deadline=None)
@given(label_maps())
def test_compact_maps_are_best_first_and_finite(label_map: LabelMap) -> None:
    back = decode(encode(label_map, "compact"), "compact", label_map.num_classes)
    assert back.scores.isfinite().all()
    assert (back.scores.diff(dim=0) <= 0).all()
    assert (back.log_normalizer == 0).all()


def _by_class(label_map: LabelMap) -> tuple[torch.Tensor, torch.Tensor]:
    classes, order = label_map.classes.sort(0)
    return classes, label_map.probabilities().clamp(max=1).gather(0, order)


def test_a_second_compact_round_changes_nothing(make_map) -> None:
    once = encode(make_map(k=5, grid=(18, 18), num_classes=1000), "compact")
    assert encode(decode(once, "compact", 1000), "compact") == once


def test_maps_that_cannot_be_stored_are_refused(make_map) -> None:
    good = make_map()
    bad = LabelMap(good.scores * float("nan"), good.classes, None, Box(), 20)
    with pytest.raises(ValueError, match="finite"):
        encode(bad, "compact")
    with pytest.raises(ValueError, match=r"classes must lie in \[0, 3\)"):
        encode(LabelMap(good.scores, good.classes, None, Box(), 3), "compact")
    with pytest.raises(ValueError, match="float16"):
        encode(LabelMap(good.scores * 1e6, good.classes, None, Box(), 20), "exact")
