"""`tokenlabel view`: browse images with their labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

__all__ = ["view"]


def view(
    labels: Annotated[str, tyro.conf.Positional],
    *,
    data: str,
    split: str | None = None,
    compare: str | None = None,
    checkpoint: Path | None = None,
    model: str | None = None,
    weights: Literal["auto", "ema", "model"] = "auto",
    port: int = 8765,
) -> None:
    """Browse images and their labels in a local web page.

    Search by class or name. Sort by disagreement with the true class, by entropy, or by the student's
    loss. Click a cell to see its best classes; drag a box to see the targets for that crop. The page is
    served on localhost only and needs no network. From another machine:
    ssh -L 8765:127.0.0.1:8765 HOST.

    Args:
        labels: The label store.
        data: The images of the store.
        split: Split to use (default: the training split).
        compare: Another label store of the same images, shown next to the first.
        checkpoint: A student whose tokens are shown: a run folder, or a weights file together with
            --model.
        model: timm name of the student.
        weights: Which weights of a run: the moving average (ema) or the trained weights (model).
        port: Port of the page; 0 takes any free port.
    """
    from functools import partial

    from tokenlabel.data.open import announce, open_images
    from tokenlabel.evaluation.load import load_classifier
    from tokenlabel.labels import LabelStore
    from tokenlabel.viewer.answers import Answers, student_loss
    from tokenlabel.viewer.catalog import Catalog
    from tokenlabel.viewer.server import ViewerServer

    student = None
    if checkpoint is not None or model is not None:
        student = load_classifier(checkpoint, model, weights=weights)
        student.require_classes()
    store = LabelStore(labels)
    source = open_images(data, split, "train", orientation=store.manifest.orientation)
    announce(source, data)
    catalog = Catalog(source, store)
    if student is not None and student.num_classes == len(catalog.source.class_names):
        catalog.add_score("loss", partial(student_loss, catalog, student))
    answers = Answers(catalog, None if compare is None else LabelStore(compare), student)
    with ViewerServer(answers, port) as server:
        print(f"{server.url} (Ctrl-C ends it)", flush=True)
        catalog.start()
        try:
            server.serve_forever()
        finally:
            catalog.close()
