"""The runs of a comparison, each made once: interrupted, the same call goes on."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenlabel.compare.comparison import Comparison
from tokenlabel.compare.record import Record, read_record, write_record
from tokenlabel.errors import InputError

__all__ = ["Plan", "compare", "slug"]


@dataclass(frozen=True)
class Plan:
    """Arms, the baseline first and the one in question last, each trained with every seed.

    `run` trains and judges one of them. Seeds are paired: a seed gives every arm the same first
    weights and the same order of images. Records are kept in `folder`.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    run: Callable[[str, int], Record]
    folder: Path


def compare(plan: Plan) -> Comparison:
    """Make the runs that have no record yet, seed by seed, and read all. Raises InputError."""
    if len(plan.arms) < 2 or len({slug(arm) for arm in plan.arms}) < len(plan.arms):
        raise InputError("a comparison needs two arms of different names, or more")
    if not plan.seeds or len(set(plan.seeds)) < len(plan.seeds):
        raise InputError("a comparison needs seeds, each once")
    return Comparison(
        plan.arms, tuple(_record(plan, arm, s) for s in plan.seeds for arm in plan.arms)
    )


def slug(arm: str) -> str:
    """An arm's name as a part of a path."""
    return "-".join(re.findall(r"[a-z0-9]+", arm.lower()))


def _record(plan: Plan, arm: str, seed: int) -> Record:
    file = plan.folder / f"{slug(arm)}-{seed}.json"
    if not file.exists():
        write_record(file, plan.run(arm, seed))
    found = read_record(file)
    if (found.arm, found.seed) != (arm, seed):
        raise InputError(f"{file} is of {found.arm}, seed {found.seed}: remove it")
    return found
