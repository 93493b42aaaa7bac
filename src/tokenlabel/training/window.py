"""What is summed between two lines of the metrics file."""

from __future__ import annotations

from typing import Any

import torch

from tokenlabel.training.trainer import Update

__all__ = ["Window"]


class Window:
    """Sums since the last log line; losses stay on the device until they are asked for."""

    def __init__(self) -> None:
        self.total_seconds = 0.0
        self._reset()

    def _reset(self) -> None:
        self.losses: dict[str, torch.Tensor] = {}
        self.counted = self.updates = 0
        self.waited = self.seconds = self.norm = 0.0

    def add(self, update: Update, *, waited: float, took: float) -> None:
        self.updates += 1
        self.waited += waited
        self.seconds += took
        self.total_seconds += took
        if update.skipped:
            return
        self.counted += 1
        self.norm += update.gradient_norm
        for name, loss in update.losses.items():
            self.losses[name] = self.losses[name] + loss if name in self.losses else loss

    def close(self) -> tuple[dict[str, float], dict[str, float]]:
        """Mean losses, and figures of the window; begins a new one."""
        counted = max(self.counted, 1)
        losses = {name: float(loss) / counted for name, loss in self.losses.items()}
        figures = {
            "updates": self.updates,
            "seconds": self.seconds,
            "waited": self.waited,
            "gradient_norm": self.norm / counted,
        }
        self._reset()
        return losses, figures

    def state(self) -> dict[str, Any]:
        """The sums as plain values, so that a resumed run logs whole windows. Float32 survives JSON."""
        losses = {name: float(loss) for name, loss in self.losses.items()}
        plain = ("counted", "updates", "waited", "seconds", "norm")
        return {"losses": losses, **{name: getattr(self, name) for name in plain}}

    def load(self, state: dict[str, Any]) -> None:
        """Go on with the sums that `state` gave."""
        self.losses = {name: torch.tensor(loss) for name, loss in state["losses"].items()}
        self.counted, self.updates = state["counted"], state["updates"]
        self.waited, self.seconds, self.norm = state["waited"], state["seconds"], state["norm"]
