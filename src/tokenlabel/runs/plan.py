"""What the engine needs to know of a run, whatever it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tokenlabel.runs.recipe import Checkpoints, Course, Ema, Engine, Optimizer

__all__ = ["Pace", "Plan"]


class Pace(Protocol):
    """How many images an update takes, and the learning rate's course."""

    @property
    def batch_size(self) -> int: ...
    @property
    def decay(self) -> str: ...
    @property
    def warmup_lr(self) -> float: ...
    @property
    def min_lr(self) -> float: ...
    @property
    def max_steps(self) -> int | None: ...
    def course(self, updates_per_epoch: int) -> Course: ...


class Plan(Protocol):
    """A recipe, as the engine reads it. `tokenlabel.runs.recipe.Recipe` is one."""

    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def schedule(self) -> Pace: ...
    @property
    def optimizer(self) -> Optimizer: ...
    @property
    def ema(self) -> Ema: ...
    @property
    def engine(self) -> Engine: ...
    @property
    def checkpoints(self) -> Checkpoints: ...
    @property
    def trackers(self) -> tuple[str, ...]: ...
    @property
    def validate_every(self) -> int: ...
    @property
    def log_every(self) -> int: ...
    @property
    def measure(self) -> str:
        """The validation's measure that decides which checkpoint is best."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What tells this run from others of its kind, for its results."""
