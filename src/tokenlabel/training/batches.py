"""Loaders as a run's processes share them; as many batches together as an update accumulates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from tokenlabel.choices import Cache
from tokenlabel.data.batch import Batch
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.loader import Loader, eval_loader
from tokenlabel.data.source import ImageSource, source_fingerprint
from tokenlabel.errors import InputError
from tokenlabel.runs.recipe import BaseRecipe
from tokenlabel.training.ranks import Ranks, accumulation

__all__ = [
    "LoaderBatches",
    "held_out_batches",
    "image_facts",
    "require_a_batch",
    "update_batches",
]

B = TypeVar("B")

_MOST_JUDGED = 256  # images at once in a validation


class LoaderBatches(Generic[B]):
    """`passes` batches of `loader` make an update."""

    def __init__(self, loader: Loader[B], passes: int) -> None:
        self.loader, self.passes = loader, passes
        self.updates_per_epoch = len(loader) // passes

    def epoch(self, epoch: int, start: int) -> Iterator[list[B]]:
        """The batches of each update of an epoch from update `start` on, one list an update."""
        batches = self.loader.epoch(epoch, start * self.passes)
        for _ in range(start, self.updates_per_epoch):
            yield [next(batches) for _ in range(self.passes)]


def update_batches(
    make: Callable[..., Loader[B]],
    *content: Any,
    recipe: BaseRecipe,
    workers: int,
    ranks: Ranks,
    **options: Any,
) -> LoaderBatches[B]:
    """This rank's share of the training batches of `make`, a loader of `content` and `options`.

    Raises InputError where its images do not fill one update.
    """
    passes = accumulation(recipe, ranks.count, ranks.device_batch)
    size = recipe.schedule.batch_size // ranks.count // passes
    loader = make(*content, batch_size=size, seed=recipe.seed, **_shared(ranks, workers), **options)
    require_a_batch(len(loader.order.samples), recipe)
    return LoaderBatches(loader, passes)


def require_a_batch(images: int, recipe: BaseRecipe) -> None:
    """Raises InputError where so many images do not fill one update."""
    if images < recipe.schedule.batch_size:
        raise InputError(
            f"{images} images do not fill one batch of {recipe.schedule.batch_size}: choose a smaller"
            f" one (--batch-size {images})"
        )


def held_out_batches(
    images: ImageSource,
    shown: Preprocessing,
    workers: int,
    ranks: Ranks,
    *,
    cache: Cache = "none",
) -> Loader[Batch]:
    """This rank's share of the images of a validation."""
    size = min(ranks.device_batch, _MOST_JUDGED)
    return eval_loader(images, shown, batch_size=size, cache=cache, **_shared(ranks, workers))


def image_facts(source: ImageSource, held_out: ImageSource | None) -> dict[str, Any]:
    """What a run writes down of its images (see `TaskSpec.facts`)."""
    return {
        "images": len(source),
        "left_out": dict(source.found.left_out),
        "images_fingerprint": source_fingerprint(source),
        "images_found": source.found.as_dict(),
        "held_out": None if held_out is None else {
            "images": len(held_out), "fingerprint": source_fingerprint(held_out)
        },
        "classes": list(source.class_names),
        "decode": source.rules.as_dict(),
    }  # fmt: skip


def _shared(ranks: Ranks, workers: int) -> dict[str, Any]:
    """The arguments by which a loader gives each rank its share."""
    return {
        "workers": workers,
        "rank": ranks.rank,
        "world": ranks.count,
        "pin_memory": ranks.device.type == "cuda",
    }
