"""The demo: scenes, annotator, labels, three arms, evaluation, report.

Every step is what a user's own folder gets, through the same functions as the verbs. A step whose
result stands is not repeated, so an interrupted demo goes on.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from rich.table import Table

from tokenlabel.annotators.classifier import ClassifierSpec
from tokenlabel.annotators.run import run as annotate
from tokenlabel.annotators.spec import Network
from tokenlabel.api.teach import teach
from tokenlabel.compare import Comparison, Plan, Record, compare
from tokenlabel.compare.comparison import plus_minus
from tokenlabel.compare.plan import slug
from tokenlabel.compare.training import Training
from tokenlabel.data.decode import decode_picture
from tokenlabel.data.open import open_source
from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError
from tokenlabel.evaluation.benchmarks import answers
from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.evaluation.evaluator import evaluate_source
from tokenlabel.evaluation.load import load_classifier
from tokenlabel.files import write_atomically
from tokenlabel.labels import LabelStore
from tokenlabel.progress import console, results
from tokenlabel.quickstart.photographs import label_photographs
from tokenlabel.quickstart.report import Example, write_report
from tokenlabel.quickstart.scenes import BACKGROUND, split_scans, write_scenes
from tokenlabel.quickstart.settings import ARMS, Arm, Settings, student_recipe
from tokenlabel.text import read_text

__all__ = ["run"]

_DEFAULT = Settings()


def run(output: Path, seeds: int, settings: Settings = _DEFAULT) -> Comparison:
    """Write report.html and results.json to `output` and print the table."""
    _claim(output, settings)
    photographs = label_photographs(output / "photographs")
    if photographs is not None:
        console.print(f"two photographs and their label maps: {photographs}", soft_wrap=True)
    scenes, labels = output / "scenes", output / "labels"
    _compose(scenes, settings)
    pictures = open_source(str(scenes / "train" / "images"))
    held_out = open_source(str(scenes / "test" / "images"))
    annotator = _teach(str(scenes / "train" / "images"), output / "annotator", settings)
    cells = ClassifierSpec(
        model=str(annotator), network=Network(image_size=settings.annotator.annotating_size)
    )
    annotate(pictures, cells.build(pictures.class_names), labels)
    store = LabelStore(labels)
    facts = _facts(settings) | {
        "annotator's accuracy on held-out scenes": _percent(
            _accuracy(load_classifier(model=f"local-dir:{annotator}"), held_out)
        ),
        **_agreement(pictures, scenes, store),
    }
    arms = {arm.name: arm for arm in ARMS}
    found = compare(
        Plan(
            tuple(arms),
            tuple(range(seeds)),
            lambda arm, seed: _train_and_judge(output, settings, arms[arm], seed),
            output / "records",
        )
    )
    spread = [len(pictures) * n // 7 for n in range(7)]
    examples = [_example(pictures, scenes, store, index) for index in spread]
    write_report(output / "report.html", found, examples, facts, photographs)
    content = {"facts": facts, "arms": found.lines(), "runs": found.records}
    write_atomically(output / "results.json", _plain(content))
    _print(found, output)
    return found


def _claim(output: Path, settings: Settings) -> None:
    """Write the settings, or refuse a folder that was made with others."""
    output.mkdir(parents=True, exist_ok=True)
    file, text = output / "settings.yaml", yaml.safe_dump(json.loads(_plain(settings)))
    if not file.exists():
        write_atomically(file, text)
    elif read_text(file) != text:
        raise InputError(f"{output} was made with other settings: remove it, or choose another")


def _compose(scenes: Path, settings: Settings) -> None:
    training, held_out = split_scans()
    for name, scans, count, seed in (
        ("train", training, settings.train_scenes, 1),
        ("test", held_out, settings.test_scenes, 2),
    ):
        if not (scenes / name).exists():
            write_scenes(scenes / name, scans, count, seed, settings.scenes, f"scenes, {name}")


def _teach(data: str, folder: Path, settings: Settings) -> Path:
    options = settings.annotator
    taught = teach(
        data=data,
        output=folder,
        model=options.model,
        pretrained=False,
        model_kwargs=options.model_kwargs,
        image_size=options.image_size,
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        min_scale=options.min_scale,
        hflip=False,
        holdout=0.0,
        dtype="float32",
    )
    return taught.folder


def _train_and_judge(output: Path, settings: Settings, arm: Arm, seed: int) -> Record:
    """One run, judged by its last checkpoint: the held-out scenes choose nothing."""
    recipe = student_recipe(settings, arm, seed, str(output / "scenes"), str(output / "labels"))
    choices = {"data": recipe.data.train, "val": recipe.data.val, "recipe": recipe}
    folder = output / "runs" / f"{slug(arm.name)}-{seed}"
    return Training(arm.name, seed, folder, choices, own_rule=True)()


def _accuracy(classifier: Classifier, images: ImageSource) -> float:
    """Top-1 in [0, 1] of the class head."""
    right = answers(images, classifier.class_names, "folder")
    return evaluate_source(classifier, images, right)["class"].summary()["top1"]


# -- what the labels are worth: the scenes' masks are known --------------------------------------


def _agreement(pictures: ImageSource, scenes: Path, store: LabelStore) -> dict[str, str]:
    """How many of the cells that a digit fills are labeled with that digit."""
    main, others = [], []
    for index in range(len(pictures)):
        example = _example(pictures, scenes, store, index)
        named = example.label_map.classes[0].numpy()
        digit = _majority(example.mask, named.shape)
        label = pictures.labels[index]
        main.append((named == digit)[digit == label])
        others.append((named == digit)[(digit != label) & (digit != BACKGROUND)])
    return {
        "cells filled by the main digit that name it": _percent(np.concatenate(main).mean()),
        "cells filled by another digit that name it": _percent(np.concatenate(others).mean()),
    }


def _majority(mask: np.ndarray[Any, Any], grid: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The digit that fills at least half of each cell, or BACKGROUND: [h, w]."""
    scale = [max(1, -(-cells // side)) for cells, side in zip(grid, mask.shape, strict=True)]
    fine = np.kron(mask, np.ones(scale, mask.dtype))
    rows = np.array_split(fine, grid[0], axis=0)
    cells = [np.array_split(row, grid[1], axis=1) for row in rows]
    result = np.full(grid, BACKGROUND, mask.dtype)
    for digit in range(10):
        share = np.array([[(c == digit).mean() for c in row] for row in cells])
        result[share >= 0.5] = digit
    return result


def _example(pictures: ImageSource, scenes: Path, store: LabelStore, index: int) -> Example:
    key = pictures.keys[index]
    return Example(
        image=decode_picture(pictures.read(index), key, pictures.rules),
        label_map=store[key],
        mask=np.asarray(Image.open(scenes / "train" / "masks" / key)),
        title=f"label {pictures.class_names[pictures.labels[index]]}",
    )


# -- reporting --- --------------------------------------------------------------------------------


def _facts(settings: Settings) -> dict[str, str]:
    return {
        "training scenes, held-out scenes": f"{settings.train_scenes}, {settings.test_scenes}",
        "scene": str(settings.scenes),
        "annotator": f"timm {settings.annotator}",
        "student": f"LV-ViT {settings.model_kwargs}, {settings.epochs} epochs",
        "processor cores": str(os.cpu_count()),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _plain(value: Any) -> str:
    return json.dumps(value, default=dataclasses.asdict, indent=2)


def _print(found: Comparison, output: Path) -> None:
    table = Table("training", "accuracy, %", "against labels only", "time a run")
    for line in found.lines():
        accuracy = plus_minus(found.scores(line.arm), 1)
        against = f"{line.versus.mean:+.1f}" if line.versus else "-"
        table.add_row(line.arm, accuracy, against, f"{line.seconds:.0f} s")
    results.print(table)
    results.print(found.decision())
    results.print(f"the report: {output / 'report.html'}", soft_wrap=True)
