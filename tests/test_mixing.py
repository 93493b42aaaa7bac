"""The laws of mixing: an involution, areas that add up, the same on every grid and layout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenlabel import Mix

KINDS = ["mixtoken", "cutmix", "mixup"]


def draw(kind: str, batch: int, grid: tuple[int, int], per_sample: bool, seed: int) -> Mix:
    generator = torch.Generator().manual_seed(seed)
    return Mix.draw(batch, grid, kind=kind, per_sample=per_sample, generator=generator)


@given(
    batch=st.integers(1, 7),
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
    per_sample=st.booleans(),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["mixtoken", "cutmix"]),
)
def test_exchanging_twice_changes_nothing(batch, rows, cols, per_sample, seed, kind) -> None:
    mix = draw(kind, batch, (rows, cols), per_sample, seed)
    assert torch.equal(mix.partner[mix.partner], torch.arange(batch))
    x = torch.randn(batch, rows * 2, cols * 3, 4)
    mixed = mix(x, channels_last=True)
    assert torch.equal(mix(mixed, channels_last=True), x)
    for i in range(batch):
        share = mix.share_on(rows * 2, cols * 3).expand(batch, -1, -1)[i]
        assert torch.equal(mixed[i][~share], x[i][~share])
        assert torch.equal(mixed[i][share], x[mix.partner[i]][share])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_sample", [True, False])
def test_own_share_is_what_is_left_of_the_image(kind: str, per_sample: bool) -> None:
    own = torch.arange(5.0)[:, None, None, None].expand(5, 6, 8, 1)
    for seed in range(20):
        mix = draw(kind, 5, (6, 8), per_sample, seed)
        lam = mix.lam.expand(5)
        expected = lam * torch.arange(5.0) + (1 - lam) * mix.partner
        mixed = mix(own, channels_last=True).mean((1, 2, 3))
        torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_layouts_agree(kind: str) -> None:
    mix = draw(kind, 4, (3, 5), True, 0)
    x = torch.randn(4, 6, 10, 2)
    first = mix(x, channels_last=True)
    second = mix(x.permute(0, 3, 1, 2), channels_last=False).permute(0, 2, 3, 1)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_image_is_its_own_partner(kind: str) -> None:
    x = torch.randn(1, 4, 4, 3)
    torch.testing.assert_close(draw(kind, 1, (4, 4), False, 1)(x, channels_last=True), x)


def test_lambda_is_distributed_as_asked() -> None:
    """Mean of Beta(a, a) is one half, its variance 1 / (4 (2a + 1)); boxes are cut at the border."""
    for alpha in (0.3, 1.0, 4.0):
        generator = torch.Generator().manual_seed(0)
        draws = [
            Mix.draw(2, (4, 4), kind="mixup", alpha=alpha, generator=generator).lam
            for _ in range(3000)
        ]
        lam = torch.cat(draws)
        assert lam.mean().item() == pytest.approx(0.5, abs=0.03)
        assert lam.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_alpha_must_be_positive() -> None:
    with pytest.raises(ValueError, match="alpha must be positive"):
        Mix.draw(2, (2, 2), alpha=0)


@pytest.mark.parametrize("kind", ["mixtoken", "cutmix", "mixup"])
@pytest.mark.parametrize("per_sample", [False, True])
def test_an_image_without_a_partner_keeps_all_of_itself(kind: str, per_sample: bool) -> None:
    for batch in (1, 3):
        generator = torch.Generator().manual_seed(1)
        mix = Mix.draw(batch, (4, 4), kind=kind, per_sample=per_sample, generator=generator)
        images = torch.randn(batch, 4, 4, 2)
        assert torch.equal(mix(images, channels_last=True)[-1], images[-1])
        assert mix.lam.shape == (batch,)
        assert mix.lam[-1] == 1
        assert (mix.lam[:-1] < 1).all()
