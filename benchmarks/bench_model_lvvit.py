"""LV-ViT with fused attention against the textbook version of itself.

    python benchmarks/bench_model_lvvit.py                     # CPU: time and peak memory
    python benchmarks/bench_model_lvvit.py --device cuda       # eager AMP against bf16 + compile
    python benchmarks/bench_model_lvvit.py --device cuda --model lvvit_l --img-size 288 --mfu

The opponent is the same module with `fused_attn` off (softmax(q k^T) v, matrix by matrix) in the
default memory format: what a plain PyTorch implementation of the paper does. Steps alternate, and
the speed is the median over rounds of the ratio of neighbors (on a CPU: of the process's own time
on one thread, which busy neighbors cannot stretch). Peak memory is that of a process of
its own, beyond what importing takes (CPU: highest resident size; GPU: the allocator's peak).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from timm.layers import set_fused_attn
from torch import nn

import tokenlabel.models  # registers LV-ViT in timm
from tokenlabel.models.profile import profile


def build(version: str, options: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    set_fused_attn(version != "textbook")
    model = tokenlabel.models.create_model(options.model, 1000, img_size=options.img_size)
    model.train().to(options.device)
    return model if version == "textbook" else model.to(memory_format=torch.channels_last)


def step_of(version: str, options: argparse.Namespace) -> Callable[[], None]:
    """Forward and backward of one batch: both heads, a scalar of their logits."""
    model = build(version, options)
    images = torch.randn(options.batch, 3, options.img_size, options.img_size)
    images = images.to(options.device)
    if version != "textbook":
        images = images.contiguous(memory_format=torch.channels_last)
    half = {"textbook": torch.float16, "fused": torch.bfloat16}[version]
    on_gpu = options.device == "cuda"
    forward = torch.compile(model) if on_gpu and version == "fused" else model

    def step() -> None:
        with torch.autocast(options.device, half, enabled=on_gpu):
            output = forward(images)
            loss = output.logits.float().square().mean() + output.tokens.float().square().mean()
        loss.backward()
        model.zero_grad(set_to_none=True)
        if on_gpu:
            torch.cuda.synchronize()

    return step


def seconds(step: Callable[[], None], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    step()
    return clock() - start


def peak_memory(version: str, options: argparse.Namespace) -> float:
    """MiB that building the model and a training step take, in a fresh process."""
    command = [sys.executable, __file__, "--peak", version, "--device", options.device]
    command += ["--model", options.model, "--img-size", str(options.img_size)]
    command += ["--batch", str(options.batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def report_peak(options: argparse.Namespace) -> None:
    before = resident()
    step = step_of(options.peak, options)
    for _ in range(2):
        step()
    on_gpu = options.device == "cuda"
    print(torch.cuda.max_memory_allocated() / 2**20 if on_gpu else resident() - before)


def resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def matrix_rate(device: str, size: int = 8192) -> float:
    """bf16 multiply-add operations a second of a large square matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def product() -> None:
        for _ in range(20):
            torch.mm(a, b)
        torch.cuda.synchronize()

    product()
    return 20 * 2 * size**3 / min(seconds(product) for _ in range(5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="lvvit_s")
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-memory", action="store_true", help="speed alone")
    parser.add_argument("--mfu", action="store_true", help="share of the card's bf16 matrix rate")
    parser.add_argument("--peak", choices=["textbook", "fused"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        report_peak(options)
        return
    clock = time.perf_counter
    if options.device == "cpu":
        torch.set_num_threads(1)
        clock = time.process_time
    steps = {version: step_of(version, options) for version in ("textbook", "fused")}
    for step in steps.values():
        for _ in range(3 if options.device == "cuda" else 1):
            step()
    times: dict[str, list[float]] = {version: [] for version in steps}
    for _ in range(options.rounds):
        for version, step in steps.items():
            times[version].append(seconds(step, clock))
    median = {version: statistics.median(values) for version, values in times.items()}
    ratios = [a / b for a, b in zip(times["textbook"], times["fused"], strict=True)]
    found: dict[str, object] = {
        "model": options.model,
        "image": options.img_size,
        "batch": options.batch,
        "threads": torch.get_num_threads(),
        "seconds": {version: round(value, 4) for version, value in median.items()},
        "speed, fused over textbook": round(statistics.median(ratios), 3),
    }
    if not options.no_memory:
        memory = {version: peak_memory(version, options) for version in steps}
        found["peak MiB"] = {version: round(value) for version, value in memory.items()}
        found["memory saved"] = round(1 - memory["fused"] / memory["textbook"], 3)
    if options.mfu:
        model = tokenlabel.models.create_model(options.model, 1000, img_size=options.img_size)
        work = 3 * profile(model).flops * options.batch  # backward: twice the forward
        found["share of the matrix rate"] = round(
            work / median["fused"] / matrix_rate(options.device), 3
        )
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
