"""Do token labels help segmentation? One checkpoint trained with them against one without.

    python benchmarks/bench_segmentation_transfer.py --data camvid --backbone lvvit_t \\
        --with-tokens A/model.safetensors --without B/model.safetensors --output runs/transfer

Both are fine-tuned by the recipe `camvid_transfer` with the same seeds, taking turns. Printed are each
side's mean IoU on validation at the end of training, and the difference seed by seed. A run that is
there already is not repeated, so that a stopped comparison goes on.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from tokenlabel.cli.segment import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--with-tokens", required=True, help="checkpoint trained with token labels")
    parser.add_argument("--without", required=True, help="its equal trained without")
    parser.add_argument("--output", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="further values of the recipe")
    options = parser.parse_args()
    sides = {"with token labels": options.with_tokens, "without": options.without}
    found: dict[str, list[float]] = {side: [] for side in sides}
    for seed in range(options.seeds):
        for side, weights in sides.items():
            result = train(
                data=options.data,
                output=options.output / f"{side.replace(' ', '-')}-{seed}",
                recipe="camvid_transfer",
                backbone=options.backbone,
                weights=weights,
                seed=seed,
                overrides=tuple(options.set),
            )
            assert result is not None
            found[side].append(result.results["measures"]["val/miou"])
    for side, values in found.items():
        print(f"{side:<18} {_told(values)}  ({', '.join(f'{value:.4f}' for value in values)})")
    differences = [a - b for a, b in zip(*found.values(), strict=True)]
    print(f"{'difference':<18} {_told(differences)}")


def _told(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"mean {statistics.mean(values):+.4f}  standard deviation {spread:.4f}"


if __name__ == "__main__":
    main()
