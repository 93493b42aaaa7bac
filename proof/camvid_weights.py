"""The networks of `camvid.py` that are kept with the code."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from camvid_runs import Run
from safetensors.torch import load_file

from tokenlabel.api import segment
from tokenlabel.files import replacing, write_atomically, write_tensors
from tokenlabel.runs.open import open_run
from tokenlabel.runs.recipe_file import to_yaml
from tokenlabel.segmentation.recipe import SegmentationRecipe

WEIGHTS = Path("proof/weights")


def keep(runs: Sequence[Run]) -> None:
    """The best network in half precision, with its recipe, its classes and a card; no other."""
    run = max(runs, key=lambda run: run.job.record().score, default=None)
    if run is None or not run.folder.exists():
        return  # a record that came with the code
    target = WEIGHTS / f"camvid-{run.name}"
    target.mkdir(parents=True, exist_ok=True)
    write_network(run, target)
    for other in runs:
        if other is not run:
            shutil.rmtree(WEIGHTS / f"camvid-{other.name}", ignore_errors=True)


def write_network(run: Run, target: Path) -> None:
    """A run's network into a folder, measured, unless it is there already."""
    opened, record = open_run(run.folder, SegmentationRecipe), run.job.record()
    weights, recipe, card = (
        target / name for name in ("model.safetensors", "recipe.yaml", "README.md")
    )
    half = {
        name: value.to(torch.bfloat16) if value.is_floating_point() else value
        for name, value in load_file(opened.weights()).items()
    }
    known = load_file(weights) if card.exists() else {}  # the card is written last
    if known.keys() == half.keys() and all(torch.equal(known[name], half[name]) for name in half):
        return
    card.unlink(missing_ok=True)
    with replacing(weights) as aside:
        write_tensors(aside, half)
    data = dataclasses.replace(opened.recipe.data, root="camvid", labels=None, ignore_index=0)
    write_atomically(recipe, to_yaml(dataclasses.replace(opened.recipe, data=data)))
    write_atomically(target / "classes.json", json.dumps(opened.class_names) + "\n")
    measured = segment.evaluate(data=run.data, checkpoint=weights, recipe=str(recipe))
    low, high = measured.intervals["miou"]
    classes = ", ".join(f"{name} {iou:.2f}" for name, iou in measured.class_iou.items())
    text = f"""# {target.name}

A network for street scenes: the class of every pixel, one of CamVid's 11. ResNet-10t with UPerNet,
bfloat16, from random weights.

- Training: {run.arm}, seed {run.seed}, {record.details["updates"]} updates of recipe.yaml,
  {record.seconds / 60:.0f} minutes ({record.details["device"]}, {record.details["precision"]}).
- Mean IoU of the {measured.images} validation scenes: {measured.miou:.4f} (95 % interval {low:.4f} to
  {high:.4f}), boundary IoU {measured.boundary_iou:.4f}, pixel accuracy {measured.pixel_accuracy:.4f}.
- IoU by class: {classes}.

    tokenlabel segment eval --data camvid --checkpoint {weights} \\
        --recipe {recipe}
    tokenlabel segment predict --images photos --checkpoint {weights} \\
        --recipe {recipe}
"""
    write_atomically(card, text)
