"""What a finished run leaves behind, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenlabel.text import read_json_lines

__all__ = ["TrainResult", "read_metrics"]


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    folder: Path
    results: dict[str, Any]
    """The content of `results.json`."""

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The logged updates and validations, in order."""
        return read_metrics(self.folder)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's metrics file; a last line cut off by a crash is dropped."""
    file = folder / "metrics.jsonl"
    return read_json_lines(file) if file.exists() else []
