"""Writes docs/families.md from the results of `test_every_family`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch

TABLE = Path(__file__).resolve().parents[2] / "docs" / "families.md"

HEADER = """# Families of timm models that can be students

Written by `pytest -m slow tests/models/test_families.py` with timm {timm} and torch {torch}:
**{supported} of {tried} families tried are supported.** One model of each became a `DenseModel`:

- its class logits equal the plain timm model's (where the backbone adds a token head of its own, they
  are the class head's alone, and `fuse` gives the plain model's answer);
- its tokens have the grid that `grid` tells;
- exchanging every token of two images gives the same token logits and each other's class logits;
- exchanging half of the tokens changes class and token logits;
- gradients reach every parameter, and one optimiser step lowers the loss;
- `torch.compile(fullgraph=True)` traces a training step with a mix, or the column says why not.

A model that cannot be a student raises `InputError` with the reason when it is built.

| family | model | final map | stride | MixToken acts on | compiles |
|---|---|---|---|---|---|
"""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Rewrite the table when, and only when, every family was examined in this run."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])]
    tried = [r for r in reports if r.when == "call" and "test_every_family" in r.nodeid]
    rows = [value for r in tried for key, value in r.user_properties if key == "family"]
    if not rows or len(tried) != rows[0][0]:
        return
    header = HEADER.format(
        timm=timm.__version__,
        torch=torch.__version__.partition("+")[0],
        supported=len(rows),
        tried=len(tried),
    )
    lines = [f"| {family} | `{name}` | {' | '.join(facts)} |" for _, family, name, *facts in rows]
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(header + "\n".join(sorted(lines, key=str.lower)) + "\n")
    terminalreporter.write_line(f"wrote {TABLE}")
