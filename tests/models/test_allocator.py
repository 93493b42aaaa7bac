"""A network on the CPU does not pay for new pages at every layer."""

from __future__ import annotations

import subprocess
import sys

import pytest

LAYERS = """
import resource
import torch
from tokenlabel.models.device import resolve_device

if {kept}:
    resolve_device("cpu")
for layer in range(20):
    if layer == 10:  # the heap may still grow in the first ones
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(48 << 20, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_used_again() -> None:
    def faults(kept: bool) -> int:
        script = LAYERS.format(kept=kept)
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults(kept=True) < 100
    assert faults(kept=False) > 100
