"""What is kept of one training run of a comparison."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenlabel.errors import InputError
from tokenlabel.files import write_atomically
from tokenlabel.text import read_json

__all__ = ["Record", "read_record", "write_record"]


@dataclass(frozen=True)
class Record:
    """One run: `score` in percent is what its arm is judged by; `details` are plain JSON values."""

    arm: str
    seed: int
    score: float
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)


def write_record(file: Path, record: Record) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(dataclasses.asdict(record), indent=2) + "\n")


def read_record(file: Path) -> Record:
    """Raises InputError where the file holds no record."""
    try:
        values = read_json(file, kind=dict)
        return Record(
            arm=str(values["arm"]),
            seed=int(values["seed"]),
            score=float(values["score"]),
            seconds=float(values.get("seconds", 0.0)),
            details=dict(values.get("details", {})),
        )
    except (KeyError, ValueError, TypeError, OverflowError):
        raise InputError(
            f"{file} is not a record of a run: remove it, and it is made again"
        ) from None
