"""A small run to test the engine with: random images in memory, a two-block transformer."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from PIL import Image
from torch import Tensor

import tokenlabel as tl
from tokenlabel.models import DenseModel
from tokenlabel.runs.recipe import (
    Checkpoints,
    Ema,
    Engine,
    Mixing,
    Optimizer,
    Recipe,
    Schedule,
)
from tokenlabel.supervision import TokenLabels
from tokenlabel.targets import TokenTarget
from tokenlabel.training import loop
from tokenlabel.training.callbacks import Callback
from tokenlabel.training.engine import fit
from tokenlabel.training.loop import Validation
from tokenlabel.training.ranks import Ranks, accumulation
from tokenlabel.training.task import TokenLabelingTask

CLASSES, SIDE, GRID = 7, 32, (4, 4)

RECIPE = Recipe(
    name="bench",
    supervision=TokenLabels(token_weight=0.5),
    mixing=Mixing(per_sample=True),
    optimizer=Optimizer(lr=1e-2, clip=1.0),
    schedule=Schedule(
        batch_size=8, epochs=2, warmup_epochs=1, cooldown_epochs=0, warmup_lr=1e-4, min_lr=1e-4
    ),
    ema=Ema(decay=0.9),
    engine=Engine(device="cpu", device_batch=8),
    checkpoints=Checkpoints(every_minutes=60.0),
    trackers=(),
    log_every=1,
)
# a checkpoint after every update
OFTEN = dataclasses.replace(RECIPE, checkpoints=Checkpoints(every_minutes=0.0, keep=2))


@dataclass(frozen=True)
class MemoryBatch:
    images: Tensor
    labels: Tensor
    target: TokenTarget | None
    keys: tuple[str, ...]
    clean: Tensor | None = None
    more: tuple[TokenTarget, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> MemoryBatch:
        target = self.target and self.target.first(count)
        return MemoryBatch(self.images[:count], self.labels[:count], target, self.keys[:count])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MemoryBatch:
        return self


def random_batch(images: int, seed: int = 0, classes: int = CLASSES) -> MemoryBatch:
    """Random images; every second token of the first half of the images has no target."""
    random = torch.Generator().manual_seed(seed)
    tokens = 1 + GRID[0] * GRID[1]
    weights = torch.rand(images, tokens, 3, generator=random)
    mask = torch.ones(images, tokens, dtype=torch.bool)
    mask[: images // 2, 1::2] = False
    target = TokenTarget(
        classes=torch.randint(classes, (images, 3), generator=random),
        excess=0.9 * weights / weights.sum(-1, keepdim=True),
        residual=torch.full((images, tokens), 0.1 / classes),
        mask=mask,
        grid=GRID,
        num_classes=classes,
    )
    pixels = torch.randint(256, (images, 3, SIDE, SIDE), generator=random, dtype=torch.uint8)
    labels = torch.randint(classes, (images,), generator=random)
    return MemoryBatch(pixels, labels, target, tuple(f"{seed}-{i}" for i in range(images)))


def part(batch: MemoryBatch, index: int, parts: int) -> MemoryBatch:
    """One of equal consecutive slices."""
    size = len(batch) // parts
    rows = slice(index * size, (index + 1) * size)
    target = batch.target
    if target is not None:
        target = dataclasses.replace(
            target,
            classes=target.classes[rows],
            excess=target.excess[rows],
            residual=target.residual[rows],
            mask=target.mask[rows],
        )
    return MemoryBatch(batch.images[rows], batch.labels[rows], target, batch.keys[rows])


class MemoryBatches:
    """`updates` batches an epoch, the same every epoch, divided among ranks and passes."""

    def __init__(
        self,
        recipe: Recipe,
        ranks: Ranks,
        updates: int = 4,
        spoil: Callable[[int, Sequence[MemoryBatch]], None] | None = None,
    ) -> None:
        self.updates_per_epoch, self.spoil = updates, spoil
        self.size = recipe.schedule.batch_size
        self.passes = accumulation(recipe, ranks.count, ranks.device_batch)
        self.rank, self.world, self.parts = ranks.rank, ranks.count, ranks.count * self.passes

    def epoch(self, epoch: int, start: int) -> Iterator[Sequence[MemoryBatch]]:
        for update in range(start, self.updates_per_epoch):
            whole = random_batch(self.size, seed=100 * epoch + update)
            group = [
                part(whole, i * self.world + self.rank, self.parts) for i in range(self.passes)
            ]
            if self.spoil is not None:
                self.spoil(epoch * self.updates_per_epoch + update, group)
            yield group


def make_task(recipe: Recipe, **model: Any) -> TokenLabelingTask:
    torch.manual_seed(recipe.seed)
    options = {
        "img_size": SIDE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2,
        "num_classes": CLASSES, **model,
    }  # fmt: skip
    student = DenseModel(options.pop("name", "vit_tiny_patch16_224"), **options)
    return TokenLabelingTask(
        student,
        recipe.supervision,
        recipe.mixing,
        num_classes=CLASSES,
        image_size=(SIDE, SIDE),
        seed=recipe.seed,
        total_epochs=recipe.total_epochs,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        token_head_chunk=recipe.engine.token_head_chunk,
    )


def run(
    recipe: Recipe,
    folder: Path,
    *,
    validation: Validation | None = None,
    spoil: Callable[[int, Sequence[MemoryBatch]], None] | None = None,
    allow_changed: Sequence[str] = (),
    classes_by_rank: bool = False,
    **model: Any,
) -> dict[str, Any]:
    """Train; `spoil` may touch an update's batches, or kill the process."""
    with mock.patch.object(loop, "draw_curves"):  # a second for a picture, in each of many runs
        spec = MemorySpec(recipe, validation, spoil, model, classes_by_rank)
        return fit(recipe, spec, folder, allow_changed=allow_changed).results


@dataclass
class MemorySpec:
    recipe: Recipe
    validation: Validation | None
    spoil: Callable[[int, Sequence[MemoryBatch]], None] | None
    model: dict[str, Any]
    classes_by_rank: bool = False

    def build(self, ranks: Ranks) -> TokenLabelingTask:
        return make_task(self.recipe, **self.model)

    def batches(self, ranks: Ranks) -> MemoryBatches:
        return MemoryBatches(self.recipe, ranks, spoil=self.spoil)

    def evaluator(self, ranks: Ranks) -> Validation | None:
        return self.validation

    def facts(self) -> dict[str, Any]:
        names = list("abcdefg")
        if self.classes_by_rank and os.environ.get("RANK") == "1":
            names.reverse()
        return {"images": 32, "classes": names, "images_fingerprint": "0"}

    def first_batch(self) -> Image.Image:
        return Image.new("RGB", (1, 1))

    def answers(self, _run: Path) -> Image.Image | None:
        return None


@dataclass(frozen=True)
class DieAt:
    """Kills its process without warning, once at each of `updates`; what happened lies in `marks`."""

    updates: frozenset[int]
    marks: Path
    rank: int = 0

    def __call__(self, update: int, _batches: Sequence[MemoryBatch]) -> None:
        rank = int(os.environ.get("RANK", "0"))
        mark = self.marks / f"killed-{rank}-{update}"
        if rank == self.rank and update in self.updates and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class FailAt:
    update: int

    def __call__(self, update: int, _batches: Sequence[MemoryBatch]) -> None:
        if update == self.update:
            raise RuntimeError("power cut")


class SpoilAt:
    """Makes some updates' targets not a number, on one rank."""

    def __init__(self, *updates: int, rank: int = 0) -> None:
        self.updates, self.rank = updates, rank

    def __call__(self, update: int, batches: Sequence[MemoryBatch]) -> None:
        if update in self.updates and int(os.environ.get("RANK", 0)) == self.rank:
            assert batches[0].target is not None
            batches[0].target.excess[0, 2, 0] = float("nan")


def weights(folder: Path) -> dict[str, Tensor]:
    """All saved state of the last checkpoint, flat."""
    from tokenlabel.runs.checkpoints import CheckpointFolder

    state, _ = CheckpointFolder(folder / "checkpoints", 1).newest()
    assert state is not None
    flat = {f"{kind}.{k}": v for kind in ("model", "ema") for k, v in state.get(kind, {}).items()}
    for name, moments in state["optimizer"]["state"].items():
        flat |= {f"optimizer.{name}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    return flat


def processes() -> ForkServerContext:
    """Processes that start in a moment: forked from a server that has imported torch already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tokenlabel.training.loop", "tokenlabel.models"])
    return context


def start_ranks(count: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
    """Start `function(*args, **kwargs)` as each of `count` ranks, as torchrun would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = processes()
    ranks = [
        context.Process(target=_as_rank, args=(rank, count, port, function, args, kwargs))
        for rank in range(count)
    ]
    for process in ranks:
        process.start()
    return ranks


def _as_rank(
    rank: int, count: int, port: int, function: Callable[..., Any], args: Any, kwargs: Any
) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    torch.set_num_threads(1)
    function(*args, **kwargs)


# -- taught classifiers ----------------------------------------------------------------------------


class KillAt(Callback):
    def __init__(self, update: int) -> None:
        self.update = update

    def on_update(self, update: int) -> None:
        if update == self.update:
            os.kill(os.getpid(), signal.SIGKILL)


class Linger(Callback):
    """Holds the run's folder, which `started` tells."""

    def __init__(self, started: Path) -> None:
        self.started = started

    def on_start(self, recipe: Any, updates: int, done: int) -> None:
        self.started.touch()
        time.sleep(60)


def teach(callback: Callback, **options: Any) -> None:
    torch.set_num_threads(1)
    tl.teach(**options, callbacks=[callback])
