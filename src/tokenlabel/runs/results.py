"""What a finished run leaves behind, readable without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]
