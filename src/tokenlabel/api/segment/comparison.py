"""`tl.segment.compare`: whether one network segments better than another, on the same scenes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tokenlabel.api.segment.evaluation import How, Measured, measure
from tokenlabel.errors import InputError
from tokenlabel.files import write_atomically

if TYPE_CHECKING:
    from tokenlabel.segmentation.bootstrap import Difference
    from tokenlabel.segmentation.metrics import SegmentationCounts
    from tokenlabel.segmentation.recipe import SegmentationRecipe

__all__ = ["SegmentComparison", "compare", "compared"]


@dataclass(frozen=True)
class SegmentComparison:
    """Two sides, each of one run or of several (seeds): fractions, first side minus second."""

    first: dict[str, float]
    """The means of the first side over its runs, by measure."""
    second: dict[str, float]
    differences: dict[str, Difference]
    """By measure, over scenes (and over runs, where a side has several)."""
    scenes: dict[str, float]
    """The difference of each scene's own mean IoU, over the runs of each side; of those with labels."""
    note: str
    """What intervals and p-values speak of."""

    @property
    def ahead(self) -> int:
        """On how many scenes the first side is better."""
        return sum(gap > 0 for gap in self.scenes.values())

    @property
    def behind(self) -> int:
        return sum(gap < 0 for gap in self.scenes.values())


def compare(
    *,
    data: str | Path,
    checkpoints: Sequence[str | Path],
    against: Sequence[str | Path],
    recipe: str | SegmentationRecipe | None = None,
    output: str | Path | None = None,
    **how: Unpack[How],
) -> SegmentComparison:
    """Measure runs on a split of a data set and compare two sides of them scene by scene.

    `checkpoints` and `against` are runs' folders, or files of weights of one `recipe`; equally many on
    both sides are pairs, by seed say. Each run's evaluation is kept in its folder (see `evaluate`), the
    comparison as JSON in the file `output`, if one is given. Raises InputError where a side has no run,
    or the scenes or classes differ.
    """
    from tokenlabel.progress import first_process

    if not checkpoints or not against:
        raise InputError("a comparison needs a run, and one against which it is compared")
    sides = [
        [measure(data, run, recipe if Path(run).is_file() else None, **how) for run in side]
        for side in (checkpoints, against)
    ]
    found = compared(
        _scenes(sides[0] + sides[1]), *([measured.counts for measured in side] for side in sides)
    )
    if output is not None and first_process():
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        sources = {"checkpoints": list(map(str, checkpoints)), "against": list(map(str, against))}
        written = sources | dataclasses.asdict(found)
        write_atomically(Path(output), json.dumps(written, indent=2) + "\n")
    return found


def compared(
    scenes: Sequence[str],
    first: Sequence[SegmentationCounts],
    second: Sequence[SegmentationCounts],
) -> SegmentComparison:
    """As `compare`, of counts of the same scenes, which have these names."""
    from tokenlabel.segmentation.bootstrap import paired_differences
    from tokenlabel.segmentation.metrics import measures

    own = [sum(measures(c.scenes)["miou"] for c in side) / len(side) for side in (first, second)]
    gaps: Any = own[0] - own[1]
    each = zip(scenes, gaps.tolist(), first[0].labeled().tolist(), strict=True)
    return SegmentComparison(
        _means(first),
        _means(second),
        paired_differences(first, second),
        {scene: gap for scene, gap, labeled in each if labeled},
        _note(len(first), len(second)),
    )


def _note(first: int, second: int) -> str:
    """What the numbers of a comparison speak of, by the runs of its sides."""
    if first == second == 1:
        return (
            "intervals and p-values are over scenes only, of these two runs: other seeds may differ by"
            " more; give several runs a side"
        )
    runs = f"{first} pairs of runs" if first == second else f"{first} and {second} runs"
    return f"intervals and p-values are over scenes and over {runs}"


def _scenes(runs: Sequence[Measured]) -> list[str]:
    """The keys of the scenes, which are the same for all runs, as are the classes."""
    first, *others = ([pair.key for pair in measured.pairs.items] for measured in runs)
    if any(other != first for other in others):
        raise InputError("the runs were measured on different scenes: the data changed meanwhile")
    classes = runs[0].pairs.classes
    if any(measured.pairs.classes != classes for measured in runs):
        raise InputError(
            "the runs were trained on different classes, or on other values in the masks"
        )
    return first


def _means(side: Sequence[SegmentationCounts]) -> dict[str, float]:
    """The means over the runs of a side, by measure."""
    summaries = [counts.summary() for counts in side]
    return {name: sum(s[name] for s in summaries) / len(side) for name in summaries[0]}
