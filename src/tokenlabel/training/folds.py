"""`teach_folds`: K classifiers, each taught without its share of the images, which it then labels.

Cross-fitting for distillation: Dao et al. 2021, arXiv 2104.09732. A classifier is surer, and more often
right, on images it was taught on than on any others; labels of unseen images carry no such memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from tokenlabel.data.folds import folds_of
from tokenlabel.data.open import open_images
from tokenlabel.data.source import require_classes
from tokenlabel.files import claim_folder
from tokenlabel.progress import console, first_process
from tokenlabel.runs.folds import holds_folds, member_folder, write_folds
from tokenlabel.training.callbacks import Callback
from tokenlabel.training.taught import Taught, teach
from tokenlabel.training.teach_recipe import TeachRecipe

__all__ = ["teach_folds"]


def teach_folds(
    recipe: TeachRecipe,
    output: str | Path,
    *,
    callbacks: Iterable[Callback] = (),
    allow_changed: Iterable[str] = (),
) -> Taught:
    """Write one classifier for each of `recipe.data.folds` to `output`; see `tokenlabel.runs.folds`.

    The same call goes on where it was stopped. The accuracy is that of all folds' held-out images.
    Raises InputError where the images cannot be divided so, before anything is written.
    """
    data, callbacks = recipe.data, list(callbacks)
    source = require_classes(open_images(data.train, data.train_split, "train"), data.train)
    folds = folds_of(source, data.train, data.folds, data.group)
    folder = claim_folder(Path(output), ours=holds_folds) if first_process() else Path(output)
    done = []
    for fold in range(data.folds):
        if first_process():
            console.print(f"fold {fold + 1} of {data.folds}", highlight=False)
        of_fold = dataclasses.replace(recipe, data=dataclasses.replace(data, fold=fold))
        done.append(
            teach(
                of_fold,
                member_folder(folder, fold),
                callbacks=callbacks,
                allow_changed=allow_changed,
            )
        )
    if first_process():
        write_folds(folder, source.keys, folds, data.folds, data.group)
    held_out = sum(taught.held_out for taught in done)
    right = [t.accuracy * t.held_out for t in done if t.accuracy is not None]
    return Taught(
        folder,
        sum(right) / held_out if held_out else None,
        held_out,
        len(source),
        dict(source.found.left_out),
    )
