"""Arguments of timm models on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

__all__ = ["TimmArguments", "timm_arguments"]

TimmArguments = dict[str, int | float | bool | str]
"""Name value pairs; a list is written as YAML writes it: channels [64,128]."""


def timm_arguments(given: TimmArguments | None) -> Mapping[str, Any]:
    """The values as Python has them: lists from their text."""
    return {
        name: yaml.safe_load(value) if isinstance(value, str) and value.startswith("[") else value
        for name, value in (given or {}).items()
    }
