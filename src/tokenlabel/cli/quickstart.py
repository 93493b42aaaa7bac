"""`tokenlabel quickstart`: the demo on real digits."""

from __future__ import annotations

from pathlib import Path

# imported first: a package that is imported later would take the place of `tl.quickstart`
import tokenlabel.quickstart as _package  # noqa: F401

__all__ = ["quickstart"]


def quickstart(*, output: Path = Path("runs/quickstart"), seeds: int = 1) -> None:
    """The demo on real data that ships with scikit-learn, in minutes on a laptop.

    Composes 1797 real scans of handwritten digits into scenes, written as an ordinary image folder;
    fine-tunes an annotator on it; annotates it; trains a small LV-ViT on labels only, with image-level
    distillation, and with token labels; evaluates all three on held-out scenes; writes report.html
    and results.json. Every step is what `tokenlabel teach`, `annotate`, `train` and `eval` do on your
    own folder. Interrupted, the same command goes on where it stopped.

    Args:
        output: folder of the scenes, label store, runs and report.
        seeds: how often to train each arm; the report then gives mean and spread.
    """
    from tokenlabel.errors import InputError
    from tokenlabel.quickstart.run import run

    if seeds < 1:
        raise InputError(f"--seeds must be at least 1, not {seeds}")
    run(output, seeds)
