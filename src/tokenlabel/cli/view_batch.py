"""The verb `tokenlabel view-batch`."""

from __future__ import annotations

from pathlib import Path

from tokenlabel.cli.settings import Settings, all_of

__all__ = ["view_batch"]


def view_batch(
    *,
    run: Path | None = None,
    data: str | None = None,
    labels: str | None = None,
    recipe: str | None = None,
    model: str | None = None,
    image_size: int | None = None,
    settings: Settings = (),
    count: int = 8,
    epoch: int = 0,
    output: Path = Path("view-batch.jpg"),
) -> Path:
    """Draw what the student sees in training, as one picture.

    The samples are those of `tokenlabel train` with the same options, or of an existing run. Each row
    shows an image with the outline of its random crop, its label map, the student's input, and the
    targets of its tokens. If the colors of the last two columns do not match, training would get wrong
    targets.

    Args:
        run: A run folder, whose recipe is used instead of the options up to --set.
        data: A folder, tar file, WebDataset shards or Hugging Face data set.
        labels: Label store made by `tokenlabel annotate`; without it, only the images are shown.
        recipe: Recipe, as in `tokenlabel train`.
        model: Student model (default: the recipe's).
        image_size: Side of the student's input in pixels (default: the recipe's).
        settings: Further recipe values, as in `tokenlabel train`.
        count: Number of images.
        epoch: Epoch to show.
        output: Picture to write.
    """
    import dataclasses

    from tokenlabel.api.train import train_recipe
    from tokenlabel.errors import InputError
    from tokenlabel.runs.open import open_run
    from tokenlabel.training.ranks import Ranks
    from tokenlabel.training.sheets import save_sheet
    from tokenlabel.training.student import StudentSpec

    if count < 1:
        raise InputError("--count must be at least 1")
    if (run is None) == (data is None):
        raise InputError("give the --data to draw from, or the --run whose recipe is drawn with")
    if run is not None:
        chosen = open_run(run).recipe
    else:
        assert data is not None
        chosen = train_recipe(
            data=data,
            recipe=recipe,
            model=model,
            image_size=image_size,
            labels=labels or (),
            supervision=None if labels else "labels",
            settings=all_of(settings),
        )
    here = dataclasses.replace(  # none of these values changes what is drawn
        chosen,
        model=dataclasses.replace(chosen.model, weights=None),
        data=dataclasses.replace(chosen.data, workers=0),
        engine=dataclasses.replace(chosen.engine, device="cpu"),
        schedule=dataclasses.replace(chosen.schedule, batch_size=2),
    )
    spec = StudentSpec(here, annotator=lambda _images: [])
    ranks = Ranks(here.engine)
    spec.build(ranks)
    spec.batches(ranks)
    save_sheet(spec.first_batch(epoch, count), output)
    print(f"written to {output}")
    return output
