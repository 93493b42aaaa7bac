"""Do token labels help segmentation? A student trained with them, its equal without, and neither.

    python benchmarks/bench_segmentation_transfer.py --data camvid \\
        --with-tokens runs/tokens --without runs/labels --output runs/transfer

Students are folders of `tokenlabel train` or `tokenlabel export` (or, with --backbone, files of
weights). They are fine-tuned by one recipe with the same seeds, taking turns, and so is the same
network from random weights, for orientation. Printed are mean and standard deviation of each on
validation at the end of training, and the differences seed by seed. Stopped, the same command goes on.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from tokenlabel.api.segment import train

TOKENS, LABELS, RANDOM = "token labels", "labels only", "random weights"
MEASURES = ("miou", "class_accuracy", "pixel_accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--with-tokens", required=True, help="student trained with token labels")
    parser.add_argument("--without", required=True, help="its equal trained without")
    parser.add_argument("--backbone", help="timm name, where the students are files of weights")
    parser.add_argument("--output", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--recipe", default="camvid_transfer")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="further values of the recipe")
    options = parser.parse_args()
    sides = {
        TOKENS: (options.with_tokens, ()),
        LABELS: (options.without, ()),
        RANDOM: (options.without, ("model.weights=null",)),  # the network alone
    }
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for seed in range(options.seeds):
        for side, (weights, changes) in sides.items():
            result = train(
                data=options.data,
                output=options.output / f"{side.replace(' ', '-')}-{seed}",
                recipe=options.recipe,
                backbone=options.backbone,
                weights=weights,
                seed=seed,
                settings=(*options.set, *changes),
            )
            found[side].append(result.results["measures"])
    for measure in MEASURES:
        values = {side: [run[f"val/{measure}"] for run in runs] for side, runs in found.items()}
        print(f"\n{measure} after training, seeds 0 to {options.seeds - 1}")
        for side, own in values.items():
            print(f"  {side:<32}{_told(own)}")
        for one, other in ((TOKENS, LABELS), (LABELS, RANDOM)):
            pairs = zip(values[one], values[other], strict=True)
            print(f"  {f'{one} - {other}':<32}{_told([a - b for a, b in pairs])}")


def _told(values: list[float]) -> str:
    spread = f"{statistics.stdev(values):.4f}" if len(values) > 1 else "unknown"
    single = ", ".join(f"{value:+.4f}" for value in values)
    return f"mean {statistics.mean(values):+.4f}  standard deviation {spread}  ({single})"


if __name__ == "__main__":
    main()
