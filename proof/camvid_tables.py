"""The tables of `camvid.py`, from the records of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from camvid_runs import FEW, FULL, LABELS, OF_MASKS, RANDOM, TEACHERS, TOKENS, Run, counts
from pages import with_tables

from tokenlabel.api.segment.comparison import compared
from tokenlabel.compare.comparison import markdown, plus_minus
from tokenlabel.files import write_atomically

PAGE = Path("docs/segmentation.md")
PAIRS = [(arm, other) for arm in TEACHERS for other in (FEW, FULL)]  # whose differences are shown
PAIRS += [(TOKENS, LABELS), (LABELS, RANDOM), (OF_MASKS, RANDOM), (OF_MASKS, TOKENS)]


def write_tables(tables: Sequence[Mapping[str, Sequence[Run]]]) -> None:
    """Of the runs of each table, by arm, those that have a record."""
    parts = []
    for sides in tables:
        made = {arm: [r for r in side if r.job.file.exists()] for arm, side in sides.items()}
        made = {arm: side for arm, side in made.items() if side}
        if made:
            parts += [_scores(made), _differences(made)]
    text = "\n\n".join(parts)
    write_atomically(PAGE, with_tables(PAGE.read_text(), "camvid.py", text))
    print(text)


def _scores(runs: Mapping[str, Sequence[Run]]) -> str:
    """Means over seeds, in percent, and what a run took."""
    rows, machines = [], set()
    for side in runs.values():
        found = [run.job.record() for run in side]
        values = [
            {r.seed: 100 * r.details["measures"][name] for r in found}
            for name in ("miou", "boundary_iou", "class_accuracy", "pixel_accuracy")
        ]
        minutes = plus_minus({r.seed: r.seconds / 60 for r in found}, 1)
        rows.append([side[0].title, *map(plus_minus, values), minutes])
        machines |= {f"{r.details['device']}, {r.details['precision']}" for r in found}
    head = ["", "mean IoU", "boundary IoU", "class accuracy", "pixel accuracy", "minutes"]
    return f"{markdown(head, rows)}\n\nTrained on: {'; '.join(sorted(machines))}."


def _differences(runs: Mapping[str, Sequence[Run]]) -> str:
    """Pairs of arms, over the seeds that both have, and scenes."""
    rows = []
    for pair in PAIRS:
        by_seed = [{run.seed: run for run in runs.get(arm, ())} for arm in pair]
        seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
        if not seeds:
            continue
        first, second = ([counts(side[seed]) for seed in seeds] for side in by_seed)
        scenes = list(by_seed[0][seeds[0]].job.record().details["scenes"])
        found = compared(scenes, first, second)
        gap = found.differences["miou"]
        low, high = (100 * side for side in gap.interval)
        rows.append(
            [
                f"{' - '.join(pair)}, seeds {', '.join(map(str, seeds))}",
                f"{100 * gap.mean:+.2f} ({low:+.2f} to {high:+.2f})",
                f"{gap.p:.3f}",
                f"{found.first['miou'] / found.second['miou']:.1%}",
                f"{found.ahead} of {len(found.scenes)}",
            ]
        )
    head = ["", "mean IoU, 95 % interval", "p", "ratio", "scenes that are better"]
    return markdown(head, rows)
