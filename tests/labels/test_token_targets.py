"""Targets against a dense definition: any view, any shape of map and grid."""

from __future__ import annotations

import pytest
import torch

from tokenlabel import Box, LabelMap, View, token_targets
from tokenlabel.geometry import resample

CLASSES = 11
VIEWS = [
    View.identity(),
    View.crop(Box(0.2, 0.1, 0.9, 0.6)),
    View.crop(Box(-0.3, 0.2, 0.6, 1.4)).then(View.hflip()),
    View.rotation(20, 1.3).then(View.crop(Box(0.1, 0.1, 0.8, 0.9))),
    View.shear(0.2, 0.0, 0.8).then(View.vflip()),
]


def make_maps(k: int = 3, grid: tuple[int, int] = (5, 8), extent: Box = Box()) -> list[LabelMap]:  # noqa: B008
    generator = torch.Generator().manual_seed(4)
    return [
        LabelMap.from_logits(torch.randn(CLASSES, *grid, generator=generator) * 3, k, extent)
        for _ in VIEWS
    ]


def dense_probability(
    label_map: LabelMap, view: View, grid: tuple[int, int], eps: float
) -> torch.Tensor:
    """The definition: full distributions in each cell, area-averaged, then smoothed: [T, C]."""
    probability = label_map.probabilities().double()
    rest = (1 - probability.sum(0)).clamp(min=0) / max(CLASSES - label_map.k, 1)
    full = rest.expand(CLASSES, -1, -1).clone().scatter_(0, label_map.classes, probability)
    tokens, covered = resample(full, view, grid, label_map.extent)
    if view.axis_aligned:
        whole = resample(full, view, (1, 1), label_map.extent)[0]
    else:  # there one token is only sampled: its parts are nearer to the truth
        whole = (tokens * covered).sum((1, 2), keepdim=True) / covered.sum()
    return torch.cat([whole.flatten(1), tokens.flatten(1)], 1).T * (1 - eps) + eps / CLASSES


@pytest.mark.parametrize("grid", [(3, 4), (1, 1), (7, 2)])
@pytest.mark.parametrize("k", [1, 3, CLASSES])
def test_equal_to_the_dense_definition(grid: tuple[int, int], k: int) -> None:
    maps = make_maps(k, extent=Box(0.1, 0.0, 0.9, 1.0))
    target = token_targets(maps, VIEWS, grid, smoothing=0.1)
    assert target.grid == grid
    for i, (label_map, view) in enumerate(zip(maps, VIEWS, strict=True)):
        expected = dense_probability(label_map, view, grid, 0.1)
        mask = target.mask[i]
        torch.testing.assert_close(
            target.dense()[i][mask].double(), expected[mask], atol=5e-6, rtol=0
        )
    torch.testing.assert_close(
        target.dense().sum(2)[target.mask], torch.ones(int(target.mask.sum()))
    )


@pytest.mark.parametrize("kind", ["probability", "released"])
def test_a_batch_is_its_images_one_by_one(kind: str) -> None:
    maps = make_maps(extent=Box(0.0, 0.1, 1.0, 0.8))
    together = token_targets(maps, VIEWS, (4, 3), kind=kind)  # type: ignore[arg-type]
    for i, (label_map, view) in enumerate(zip(maps, VIEWS, strict=True)):
        alone = token_targets([label_map], [view], (4, 3), kind=kind)  # type: ignore[arg-type]
        torch.testing.assert_close(alone.dense()[0], together.dense()[i])
        assert torch.equal(alone.mask[0], together.mask[i])


def test_maps_of_different_shapes_share_a_batch() -> None:
    maps = [*make_maps(2, (3, 3))[:2], *make_maps(4, (6, 5), Box(0.0, 0.0, 0.5, 1.0))[2:]]
    target = token_targets(maps, VIEWS, (4, 4))
    for i, (label_map, view) in enumerate(zip(maps, VIEWS, strict=True)):
        alone = token_targets([label_map], [view], (4, 4))
        torch.testing.assert_close(alone.dense()[0], target.dense()[i])


def test_tokens_outside_the_map_have_no_target() -> None:
    (label_map, *_) = make_maps(extent=Box(0.5, 0.0, 1.0, 1.0))
    target = token_targets([label_map], [View.identity()], (2, 4))
    assert target.mask[0, 1:].reshape(2, 4).tolist() == [[False, False, True, True]] * 2
    moved = token_targets([label_map], [View.translation(0.3, 0.0)], (2, 4))
    assert moved.mask[0, 1:].reshape(2, 4).tolist() == [[False, False, False, True]] * 2


def test_a_targets_size_is_that_of_its_palette() -> None:
    """55 of 1000 classes on 14 x 14 tokens: tens of kilobytes, where full rows are 788."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.full((1000, 18, 18), -20.0)
    logits[torch.randperm(1000, generator=generator)[:55]] = torch.randn(
        55, 18, 18, generator=generator
    )
    label_map = LabelMap.from_logits(logits, 5, Box())
    target = token_targets([label_map], [View.identity()], (14, 14))
    tensors = (target.classes, target.excess, target.residual, target.mask)
    assert sum(tensor.nbytes for tensor in tensors) < 50_000
