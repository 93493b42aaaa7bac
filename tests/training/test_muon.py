"""Muon: timm's updates, with matrices of one shape taken together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.optim import Muon as TimmMuon
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from tokenlabel.runs.recipe import Optimizer
from tokenlabel.training.muon import Muon
from tokenlabel.training.optimize import create_optimizer


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=4),
        nn.Flatten(2),
        nn.Linear(4, 16),
        nn.Linear(16, 16),
        nn.Linear(16, 16),
        nn.Linear(16, 4),
    )


def _trained(make: Callable[[nn.Module], torch.optim.Optimizer], steps: int = 5) -> list[Tensor]:
    network = _network()
    optimizer = make(network)
    for step in range(steps):
        images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()
    return [parameter.detach() for parameter in network.parameters()]


@pytest.mark.parametrize("nesterov", [False, True])
def test_updates_are_timms(nesterov: bool) -> None:
    options = {"lr": 0.02, "weight_decay": 0.1, "nesterov": nesterov}
    theirs = _trained(lambda net: TimmMuon(net.parameters(), **options))
    ours = _trained(
        lambda net: Muon([{"params": list(net.parameters()), **options}], torch.bfloat16)
    )
    start = [parameter.detach() for parameter in _network().parameters()]
    for one, other, before in zip(ours, theirs, start, strict=True):
        moved = (other - before).norm()
        assert moved > 0
        assert (one - other).norm() < 0.01 * moved  # bfloat16 rounds in another order


def test_arithmetic_is_that_of_the_run() -> None:
    """float32 products orthogonalize more exactly than bfloat16 ones, to nearly the same update."""
    exact, rough = (
        _trained(lambda net, d=dtype: create_optimizer(net, Optimizer(name="muon", lr=0.02), d))
        for dtype in (torch.float32, torch.bfloat16)
    )
    start = [parameter.detach() for parameter in _network().parameters()]
    for one, other, before in zip(exact, rough, start, strict=True):
        assert (one - other).norm() < 0.25 * (one - before).norm()  # small singular values
    assert any(not torch.equal(one, other) for one, other in zip(exact, rough, strict=True))


def test_state_is_timms() -> None:
    """A run that was stopped under timm's goes on under ours, and the other way."""
    network = _network()
    theirs = create_optimizer_v2(network, opt="muon", lr=0.02)
    network(torch.randn(2, 3, 8, 8)).sum().backward()
    theirs.step()
    ours = create_optimizer(network, Optimizer(name="muon", lr=0.02))
    ours.step()
    assert isinstance(ours, Muon)
    kinds = [
        [set(optimizer.state[p]) for p in network.parameters()] for optimizer in (theirs, ours)
    ]
    assert kinds[0] == kinds[1]
