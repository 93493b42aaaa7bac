"""What `DenseModel` adds to a training step over the plain timm model.

    python benchmarks/bench_models.py
    python benchmarks/bench_models.py --compile
    python benchmarks/bench_models.py --compile --device cuda --batch 128 --rounds 50

A step is forward, loss, backward and AdamW; plain and wrapped steps alternate, and the figures are
ratios of the quickest step of each (the least disturbed) and of the medians. `dense` has both
heads, `dense + mix` MixToken too. The plain model's loss is the cross entropy of its class logits;
the students' adds the mean of their token logits, so that the token head is trained at hardly any
cost of a loss. On a CPU the clock is the process's own time on one thread, which busy neighbors
cannot stretch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch.nn import functional as F

from tokenlabel.mixing import Mix
from tokenlabel.models import DenseModel


def step_of(version: str, options: argparse.Namespace) -> Callable[[], None]:
    torch.manual_seed(0)
    plain = timm.create_model(options.model, num_classes=1000)
    student = DenseModel(plain)
    grid, shape = student.grid(student.image_shape[1:]), student.image_shape
    model = (plain if version == "plain" else student).train().to(options.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.randn(options.batch, *shape, device=options.device)
    classes = torch.randint(1000, (options.batch,), device=options.device)
    mix = Mix.draw(options.batch, grid, generator=torch.Generator().manual_seed(1))
    arguments = (images, mix.to(options.device)) if version == "dense + mix" else (images,)
    forward = torch.compile(model, fullgraph=True) if options.compile else model

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=options.device == "cuda"):
            output = forward(*arguments)
            if version == "plain":
                loss = F.cross_entropy(output, classes)
            else:
                loss = F.cross_entropy(output.logits, classes) + output.tokens.mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if options.device == "cuda":
            torch.cuda.synchronize()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    clock = time.perf_counter
    if options.device == "cpu":
        torch.set_num_threads(1)
        clock = time.process_time
    steps = {version: step_of(version, options) for version in ("plain", "dense", "dense + mix")}
    times: dict[str, list[float]] = {version: [] for version in steps}
    for warm in range(2 + options.rounds):
        for version, step in steps.items():
            start = clock()
            step()
            if warm >= 2:
                times[version].append(clock() - start)

    def ratios(version: str) -> dict[str, float]:
        own, plain = times[version], times["plain"]
        median = statistics.median(own) / statistics.median(plain)
        return {"quickest": round(min(own) / min(plain), 4), "median": round(median, 4)}

    print(
        json.dumps(
            {
                "model": options.model,
                "batch": options.batch,
                "compile": options.compile,
                "device": options.device,
                "threads": torch.get_num_threads(),
                "plain seconds": round(statistics.median(times["plain"]), 4),
                "dense over plain": ratios("dense"),
                "dense + mix over plain": ratios("dense + mix"),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
