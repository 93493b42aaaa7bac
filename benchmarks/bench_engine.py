"""What the engine costs over a bare loop of the same step: `python benchmarks/bench_engine.py`.

Synthetic batches, so that no loader is in the way. The bare loop is what one would write by hand for
this recipe: mix, forward, loss, backward, clip, AdamW, schedule, moving average. Both train their own
copy of one student; their steps alternate in one process, and each is timed on its own. On a GPU:

    python benchmarks/bench_engine.py --model lvvit_s --batch 128 --precision bf16 --compile
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3

from tokenlabel import recipes
from tokenlabel.data.batch import Batch
from tokenlabel.losses import token_labeling_loss
from tokenlabel.mixing import Mix
from tokenlabel.models import create_model
from tokenlabel.runs.folder import RunFolder
from tokenlabel.runs.recipe import Recipe
from tokenlabel.targets import TokenTarget
from tokenlabel.training.loop import Loop
from tokenlabel.training.ranks import Ranks
from tokenlabel.training.task import TokenLabelingTask
from tokenlabel.training.trainer import Trainer

CLASSES, PALETTE = 1000, 55
MEAN = STD = (0.5, 0.5, 0.5)


def main() -> None:
    options = _options()
    recipe = _recipe(options)
    ranks = Ranks(recipe.engine)
    batch = _batch(recipe, ranks.device)
    bare = BareLoop(recipe, ranks.device)
    timer = Alternating(bare.step, batch, options.steps, ranks.device)
    task = TokenLabelingTask(
        _student(recipe),
        recipe.supervision,
        recipe.mixing,
        num_classes=CLASSES,
        image_size=(options.size, options.size),
        seed=0,
        total_epochs=recipe.total_epochs,
        mean=MEAN,
        std=STD,
    )
    trainer = Trainer(task, recipe, ranks, timer.updates_per_epoch)
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(f"{place}/run", recipe)
        with folder.opened({}):
            Loop(trainer, timer, folder, recipe).run({})
    ours, theirs = timer.medians()
    images = recipe.schedule.batch_size
    pairs = [e / b for e, b in zip(timer.engine, timer.bare, strict=True)]
    print(
        f"{recipe.model.name} at {options.size}, batch {images}, {ranks.device}:"
        f" engine {images / ours:.2f} images/s, bare {images / theirs:.2f} images/s,"
        f" engine / bare time {ours / theirs:.4f} (medians of {len(pairs)} alternating steps),"
        f" median of the ratios of neighbors {statistics.median(pairs):.4f}"
    )


class BareLoop:
    """The step, written by hand."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.student = _student(recipe).to(device)
        if recipe.engine.channels_last:
            self.student.to(memory_format=torch.channels_last)
        self.ema = ModelEmaV3(self.student, decay=recipe.ema.decay)
        self.forward = torch.compile(self.student) if recipe.engine.compile else self.student
        self.optimizer = create_optimizer_v2(
            self.student,
            opt="adamw",
            lr=recipe.optimizer.lr,
            weight_decay=recipe.optimizer.weight_decay,
            **({"fused": True} if device.type == "cuda" else {}),
        )
        self.schedule, _ = create_scheduler_v2(
            self.optimizer, num_epochs=300, step_on_epochs=False, updates_per_epoch=1000
        )
        self.scale = torch.tensor(STD, device=device).view(3, 1, 1)
        self.done = 0

    def step(self, batch: Batch) -> None:
        recipe = self.recipe
        self.student.train()
        images = (batch.images.float() / 255 - self.scale) / self.scale
        truth = torch.nn.functional.one_hot(batch.labels, CLASSES) * 0.9 + 0.1 / CLASSES
        assert batch.target is not None
        mix = Mix.draw(len(images), batch.target.grid).to(self.device)
        half = recipe.engine.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            output = self.forward(images, mix)
            losses = token_labeling_loss(output, batch.target, truth, mix, 0.5)
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), recipe.optimizer.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.student)
        self.done += 1
        self.schedule.step_update(self.done)


class Alternating:
    """Batches for the engine; while it waits for the next one, the bare loop makes its step."""

    WARM_UP = 3

    def __init__(
        self, bare: Callable[[Batch], None], batch: Batch, steps: int, device: torch.device
    ) -> None:
        self.step, self.batch, self.device = bare, batch, device
        self.updates_per_epoch = steps + self.WARM_UP
        self.engine: list[float] = []
        self.bare: list[float] = []

    def epoch(self, _epoch: int, _start: int) -> Iterator[list[Batch]]:
        for number in range(self.updates_per_epoch):
            begun = self._now()
            self.step(self.batch)
            bare_done = self._now()
            yield [self.batch]
            engine_done = self._now()
            if number >= self.WARM_UP:
                self.bare.append(bare_done - begun)
                self.engine.append(engine_done - bare_done)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def medians(self) -> tuple[float, float]:
        count = min(len(self.engine), len(self.bare))
        self.bare = self.bare[:count]
        return statistics.median(self.engine), statistics.median(self.bare)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lvvit_t")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def _recipe(options: argparse.Namespace) -> Recipe:
    base = recipes.get("lvvit_s_224")
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, name=options.model, image_size=options.size),
        supervision=dataclasses.replace(base.supervision, class_target="ground-truth"),
        optimizer=dataclasses.replace(base.optimizer, clip=1.0),
        schedule=dataclasses.replace(
            base.schedule, batch_size=options.batch, max_steps=options.steps + Alternating.WARM_UP
        ),
        engine=dataclasses.replace(
            base.engine,
            device_batch=options.batch,
            precision=options.precision,
            compile=options.compile,
            channels_last=True,
        ),
        trackers=(),
    )


def _student(recipe: Recipe) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model(
        recipe.model.name, CLASSES, img_size=recipe.model.image_size, drop_path_rate=0.1
    )


def _batch(recipe: Recipe, device: torch.device) -> Batch:
    images, side = recipe.schedule.batch_size, recipe.model.image_size
    assert isinstance(side, int)
    grid = (side // 16, side // 16)
    tokens = 1 + grid[0] * grid[1]
    excess = torch.rand(images, tokens, PALETTE).softmax(-1) * 0.9
    target = TokenTarget(
        classes=torch.randint(CLASSES, (images, PALETTE)),
        excess=excess,
        residual=torch.full((images, tokens), 0.1 / CLASSES),
        mask=torch.ones(images, tokens, dtype=torch.bool),
        grid=grid,
        num_classes=CLASSES,
    )
    pixels = torch.randint(256, (images, 3, side, side), dtype=torch.uint8)
    labels = torch.randint(CLASSES, (images,))
    return Batch(pixels, labels, target, tuple(map(str, range(images)))).to(device)


if __name__ == "__main__":
    main()
