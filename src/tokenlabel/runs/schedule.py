"""How long a run trains, and the course of its learning rate."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

from pydantic.dataclasses import dataclass

from tokenlabel.errors import InputError
from tokenlabel.options import STRICT, Count, Epochs, NotNegative

__all__ = ["BaseSchedule", "Course", "Schedule"]


class Course(NamedTuple):
    """The course of the learning rate, in updates."""

    warmup: int  # the first part of `decay`
    decay: int
    cooldown: int

    @property
    def total(self) -> int:
        return self.decay + self.cooldown


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BaseSchedule:
    """How many images at a time, and the learning rate's course; a subclass says how long, in its
    `unit` and `warmup_<unit>`.
    """

    unit: ClassVar[str]

    batch_size: Count = 1024
    """Images an update, over all ranks and accumulated passes together."""
    warmup_lr: NotNegative = 1e-6
    min_lr: NotNegative = 1e-5
    decay: Literal["cosine", "constant", "poly"] = "cosine"
    """"poly" has power 1: a straight line."""
    max_steps: Count | None = None
    """Stop after so many updates, for trials; the learning rate's course stays as it is."""
    patience: Count | None = None
    """Stop when so many validations in a row were no better than the best before them."""

    def course(self, updates_per_epoch: int) -> Course:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Schedule(BaseSchedule):
    """A length in epochs."""

    unit: ClassVar[str] = "epochs"

    epochs: Count = 300
    """Epochs of warm-up and decay."""
    warmup_epochs: NotNegative = 5
    """May be a fraction of an epoch."""
    cooldown_epochs: Epochs = 10
    """Further epochs at `min_lr`."""

    def course(self, updates_per_epoch: int) -> Course:
        """Raises InputError where the warm-up leaves nothing to train at the full rate."""
        if self.warmup_epochs >= self.epochs:
            raise InputError(
                f"schedule.warmup_epochs = {self.warmup_epochs} leaves nothing of"
                f" {self.epochs} epochs to train at the full rate"
            )
        return Course(
            round(self.warmup_epochs * updates_per_epoch),
            self.epochs * updates_per_epoch,
            self.cooldown_epochs * updates_per_epoch,
        )
