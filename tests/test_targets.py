"""Palette targets against their dense meaning."""

from __future__ import annotations

import pytest
import torch

from tokenlabel import Mix, TokenTarget


def random_target(batch: int, palette: int, seed: int = 0) -> TokenTarget:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.stack([torch.randperm(9, generator=generator)[:palette] for _ in range(batch)])
    excess = torch.rand(batch, 7, palette, generator=generator) / palette
    residual = (1 - excess.sum(-1)) / 9
    mask = torch.rand(batch, 7, generator=generator) > 0.3
    return TokenTarget(classes, excess, residual, mask, (2, 3), 9)


def test_dense_rows_are_distributions() -> None:
    dense = random_target(3, 4).dense()
    torch.testing.assert_close(dense.sum(-1), torch.ones(3, 7))


def test_concatenating_pads_without_changing_anything() -> None:
    first, second = random_target(2, 3), random_target(1, 5, seed=1)
    joined = TokenTarget.concatenate([first, second])
    torch.testing.assert_close(joined.dense(), torch.cat([first.dense(), second.dense()]))
    assert len(joined) == 3


def test_concatenating_refuses_different_grids() -> None:
    first = random_target(1, 3)
    other = TokenTarget(first.classes, first.excess, first.residual, first.mask, (3, 2), 9)
    with pytest.raises(ValueError, match="different grids"):
        TokenTarget.concatenate([first, other])


def test_the_class_target_is_the_first_row() -> None:
    target = random_target(3, 4)
    torch.testing.assert_close(target.class_target(), target.dense()[:, 0])


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_mixed_targets_blend_where_both_exist(kind: str, batch: int) -> None:
    target = random_target(batch, 4)
    generator = torch.Generator().manual_seed(5)
    mix = Mix.draw(batch, (2, 3), kind=kind, per_sample=True, generator=generator)
    share = torch.cat([(1 - mix.lam)[:, None], mix.share.float().flatten(1)], 1)[..., None]
    dense = target.dense()
    expected = (1 - share) * dense + share * dense[mix.partner]
    mixed = target.mixed(mix)
    torch.testing.assert_close(mixed.dense(), expected)
    own, other = target.mask | (share[..., 0] == 1), target.mask[mix.partner] | (share[..., 0] == 0)
    assert torch.equal(mixed.mask, own & other)
