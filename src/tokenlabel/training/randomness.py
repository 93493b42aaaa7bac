"""Every random number of training is a function of (seed, update, part) and of nothing before it.

So there is no generator state to save: a run resumed in the middle of an epoch, after any kind of
death, draws what the undisturbed run would have drawn.
"""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["derived_seed", "generator", "seed_everything"]


def derived_seed(*numbers: int) -> int:
    """A 64-bit seed from non-negative numbers; near numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def generator(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(derived_seed(*numbers))


def seed_everything(*numbers: int) -> None:
    """Seed torch's own generators of every device (dropout and stochastic depth draw from them)."""
    torch.manual_seed(derived_seed(*numbers))
