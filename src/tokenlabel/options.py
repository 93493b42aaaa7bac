"""Types of the options in recipes and specifications: plain, strict and without torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

__all__ = ["STRICT", "Count", "Epochs", "NotNegative", "Positive", "Share"]

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""Of pydantic's dataclasses: no unknown keys, no conversions, no NaN."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[int, Field(ge=0)]
