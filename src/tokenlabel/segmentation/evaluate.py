"""Counts of a data set, over all ranks."""

from __future__ import annotations

from tokenlabel.progress import progress_bar
from tokenlabel.segmentation.files import read_pair
from tokenlabel.segmentation.inference import Segmenter
from tokenlabel.segmentation.metrics import SegmentationCounts
from tokenlabel.segmentation.pairs import Pairs
from tokenlabel.training.ranks import Ranks

__all__ = ["evaluate_pairs"]


def evaluate_pairs(
    segmenter: Segmenter, pairs: Pairs, ranks: Ranks, *, show: bool = True
) -> SegmentationCounts:
    """Segment every image, at its own resolution, on the rank whose turn it is."""
    counts = SegmentationCounts.zeros(len(pairs), len(pairs.classes))
    mine = range(ranks.rank, len(pairs), ranks.count)
    segmenter.model.eval()
    with progress_bar(visible=show and ranks.first) as bar:
        task = bar.add_task("segmenting", total=len(mine), note="")
        for scene in bar.track(mine, task_id=task):
            image, labels = read_pair(pairs.items[scene], pairs.classes, pairs.rules)
            counts.add(scene, segmenter(image), labels)
    return SegmentationCounts(ranks.sum(counts.scenes))
