"""What token labeling costs a training step, over training the same model without it.

    python benchmarks/bench_step.py [--device cuda --batch 128] [--rounds 8]

Two copies of LV-ViT-S (224 px, 1000 classes) take turns: one learns labels alone, the other labels,
token labels and MixToken, its targets made anew from label maps in every step (on the CPU, although
a loader's workers would make them ahead). A step is forward, backward and AdamW, in bf16 on a GPU.
Times are processor seconds of one thread, on a GPU wall seconds between synchronisations. The parts
that token labeling adds are timed once more on their own.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import torch
from bench_targets import CLASSES, TOKENS, WIDTH, make_maps, make_views
from torch.nn import functional as F

from tokenlabel import Mix, TokenTarget, token_targets
from tokenlabel.data.batch import Batch
from tokenlabel.losses import token_loss
from tokenlabel.models import create_model
from tokenlabel.runs.recipe import Mixing
from tokenlabel.supervision import GroundTruth, Method, TokenLabels
from tokenlabel.training.task import Step, TokenLabelingTask

SIZE, GRID = 224, (TOKENS, TOKENS)


class Trainer:
    """One student, its optimizer, and a step."""

    def __init__(self, supervision: Method, mixing: Mixing, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device = device
        self.task = TokenLabelingTask(
            create_model("lvvit_s", CLASSES, img_size=SIZE),
            supervision,
            mixing,
            num_classes=CLASSES,
            image_size=(SIZE, SIZE),
            seed=0,
            total_epochs=300,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ).to(device)
        self.task.student.to(memory_format=torch.channels_last)
        trained = [p for p in self.task.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=device.type == "cuda")
        self.updates = 0

    def step(self, batch: Batch) -> None:
        self.task.train()
        step = Step(self.updates, 0, 0, 1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.task(batch.to(self.device), step)["loss"]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1


def seconds(function: Callable[[], object], device: torch.device) -> float:
    if device.type == "cpu":
        start = time.process_time()
        function()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def parts(
    target: Callable[[], TokenTarget], batch: int, device: torch.device
) -> dict[str, Callable[[], object]]:
    """What token labeling adds to a step, each part on its own."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    features = torch.randn(batch, *GRID, WIDTH, device=device, dtype=dtype, requires_grad=True)
    head = torch.nn.Linear(WIDTH, CLASSES, device=device, dtype=dtype)
    with torch.no_grad():
        logits = head(features)
    gradient, on_device = torch.randn_like(logits), target().to(device)
    embedded = torch.randn(batch, WIDTH, *GRID, device=device, dtype=dtype, requires_grad=True)
    mix = Mix.draw(batch, GRID).to(device)

    def mix_and_back() -> None:
        mixed = mix(embedded, channels_last=False)
        mix(mixed, channels_last=False).backward(embedded.detach())

    return {
        "making targets": target,
        "token loss, forward and backward": lambda: token_loss(
            logits.detach().requires_grad_(), on_device
        ).backward(),
        "token head, forward and backward": lambda: F.linear(
            features, head.weight, head.bias
        ).backward(gradient),
        "mixing and mixing back": mix_and_back,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    maps, views = make_maps(options.batch), make_views(options.batch)
    images = torch.randint(256, (options.batch, 3, SIZE, SIZE), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (options.batch,))
    plain = Batch(images, labels, None, ("",) * options.batch)

    def target() -> TokenTarget:
        return token_targets(maps, views, GRID)

    without = Trainer(GroundTruth(), Mixing(kind="none"), device)
    with_tokens = Trainer(TokenLabels(), Mixing(), device)
    contestants: dict[str, Callable[[], object]] = {
        "labels alone": lambda: without.step(plain),
        "token labels and MixToken": lambda: with_tokens.step(
            dataclasses.replace(plain, target=target())
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(options.rounds + 2):
        order = list(contestants.items())
        for name, function in order if number % 2 else reversed(order):
            times[name].append(seconds(function, device))
    base, ours = (values[2:] for values in times.values())
    ratios = [b / a for a, b in zip(base, ours, strict=True)]
    step = statistics.median(base)
    print(f"LV-ViT-S, batch {options.batch}, {device}, {options.rounds} alternating steps of each")
    print(f"labels alone {step * 1e3:.0f} ms, token labels {statistics.median(ours) * 1e3:.0f} ms")
    print(
        f"ratio of medians {statistics.median(ours) / step:.4f},"
        f" median of neighbors' ratios {statistics.median(ratios):.4f}"
    )
    for name, function in parts(target, options.batch, device).items():
        function()
        part = statistics.median(seconds(function, device) for _ in range(7))
        print(f"  {name:34s} {part * 1e3:7.2f} ms, {100 * part / step:.2f} % of a step")


if __name__ == "__main__":
    main()
