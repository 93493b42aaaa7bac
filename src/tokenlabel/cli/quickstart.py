"""`tokenlabel quickstart`: the demo on real digits."""

from __future__ import annotations

from pathlib import Path

# imported first: a package that is imported later would take the place of `tl.quickstart`
import tokenlabel.quickstart as _package  # noqa: F401

__all__ = ["quickstart"]


def quickstart(*, output: Path = Path("runs/quickstart"), seeds: int = 1) -> None:
    """Demo on real data that comes with scikit-learn; takes minutes on a laptop.

    Composes scenes of 1797 scanned handwritten digits and writes them as an image folder. Fine-tunes an
    annotator and labels the scenes. Trains a small LV-ViT with labels only, with image-level
    distillation, and with token labels. Evaluates all three on held-out scenes and writes report.html
    and results.json. The steps are those of `tokenlabel teach`, `annotate`, `train` and `eval`. To
    resume, run the same command again.

    Args:
        output: folder for the scenes, label store, runs and report.
        seeds: number of runs per method; the report gives mean and spread.
    """
    from tokenlabel.errors import InputError
    from tokenlabel.quickstart.run import run

    if seeds < 1:
        raise InputError(f"--seeds must be at least 1, not {seeds}")
    run(output, seeds)
