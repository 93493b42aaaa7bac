"""Where a run keeps its evaluations: a folder for each thing that was measured."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

__all__ = ["evaluation_folder"]

_LONGEST = 100  # characters of the readable part


def evaluation_folder(
    run: Path, measured: Mapping[str, object], unnamed: Collection[str] = ()
) -> Path:
    """`evaluation/NAME` in a run's folder, one NAME for each combination of what was `measured`.

    `measured` says all on which the numbers depend: weights, step, size, data, rule ... (values for
    JSON). The name shows the values, except those that are `unnamed`, and ends with a digest of all:
    what differs in anything is kept apart, and an evaluation that is repeated finds its own place.
    """
    named = [_text(value) for name, value in measured.items() if name not in unnamed]
    shown = [re.sub(r"[^A-Za-z0-9.+=-]+", "-", text).strip("-.") for text in named]
    content = json.dumps(dict(measured), sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:6]
    return run / "evaluation" / f"{'_'.join(filter(None, shown))[:_LONGEST]}_{digest}"


def _text(value: object) -> str:
    if value is None or value is False:
        return ""
    if isinstance(value, (list, tuple)):
        return "x".join(map(str, value))
    return str(value)
