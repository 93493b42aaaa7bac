"""Token targets and loss in palette form against the dense formulation, interleaved in one run.

    python benchmarks/bench_targets.py [--batch 64] [--threads 1] [--rounds 7]

The opponent is the released code's arithmetic on [B, C, S, S] maps: scatter, RoIAlign, softmax and
smoothing to [B, C, 1 + N] targets, then soft cross-entropy by autograd. Times are medians over the
rounds; memory is the peak of a fresh process above its start.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from tokenlabel import Box, LabelMap, TokenTarget, View, token_targets
from tokenlabel.data.augment import Augmentation
from tokenlabel.losses import fused_token_loss, token_loss

CLASSES, SIDE, K, PALETTE, TOKENS, WIDTH = 1000, 18, 5, 55, 14, 384
SMOOTHING = 0.1


def make_maps(batch: int) -> list[LabelMap]:
    """Smooth maps of the published form: 18 x 18 cells, 5 of about 55 classes in each."""
    generator = torch.Generator().manual_seed(0)
    maps = []
    for _ in range(batch):
        coarse = torch.randn(1, PALETTE, 6, 6, generator=generator) * 4 + 4
        logits = F.interpolate(coarse, (SIDE, SIDE), mode="bicubic")[0]
        scores, slots = logits.topk(K, dim=0)
        ids = torch.randperm(CLASSES, generator=generator)[:PALETTE]
        log_normalizer = scores.logsumexp(0) + 0.05
        maps.append(LabelMap(scores, ids[slots], log_normalizer, Box(), CLASSES))
    return maps


def make_views(batch: int) -> list[View]:
    rng, augmentation = np.random.default_rng(0), Augmentation()
    return [augmentation.draw((375, 500), (224, 224), rng).view for _ in range(batch)]


def dense_targets(maps: list[LabelMap], views: list[View], dtype: torch.dtype) -> Tensor:
    """[B, C, 1 + N] targets by the released arithmetic (crops only: flips are cheap there)."""
    logits = torch.zeros(len(maps), CLASSES, SIDE, SIDE, dtype=dtype)
    for row, label_map in zip(logits, maps, strict=True):
        row.scatter_(0, label_map.classes, label_map.scores.to(dtype))
    boxes = torch.tensor([view.source_box().as_tuple() for view in views], dtype=dtype)
    rois = torch.cat([torch.arange(len(maps), dtype=dtype)[:, None], boxes * SIDE - 0.5], 1)
    parts = [roi_align(logits, rois, n, 1.0, -1, False).flatten(2) for n in (1, TOKENS)]
    off = SMOOTHING / CLASSES
    return torch.cat([part.softmax(1) * (1 - SMOOTHING + off) + off for part in parts], 2)


def dense_loss(tokens: Tensor, targets: Tensor) -> Tensor:
    per_token = -(targets[:, :, 1:].transpose(1, 2) * F.log_softmax(tokens, -1)).sum(-1)
    return per_token.mean()


def run(name: str, batch: int) -> None:
    """One formulation once, from a cold start: what the memory is measured on."""
    contestants(batch)[name]()


def contestants(batch: int) -> dict[str, Callable[[], object]]:
    maps, views = make_maps(batch), make_views(batch)
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(batch, TOKENS, TOKENS, WIDTH, generator=generator)
    weight = torch.randn(CLASSES, WIDTH, generator=generator) / math.sqrt(WIDTH)
    bias = torch.zeros(CLASSES)
    logits = F.linear(features, weight, bias)

    def palette(kind: str) -> TokenTarget:
        return token_targets(maps, views, (TOKENS, TOKENS), kind=kind, smoothing=SMOOTHING)  # type: ignore[arg-type]

    def dense_step() -> None:
        tokens = logits.detach().requires_grad_()
        dense_loss(tokens.flatten(1, 2), dense_targets(maps, views, torch.float32)).backward()

    def palette_step() -> None:
        tokens = logits.detach().requires_grad_()
        token_loss(tokens, palette("released")).backward()

    def dense_head() -> None:
        x, w = features.detach().requires_grad_(), weight.detach().requires_grad_()
        tokens = F.linear(x, w, bias)
        dense_loss(tokens.flatten(1, 2), dense_targets(maps, views, torch.float32)).backward()

    def fused_head() -> None:
        x, w = features.detach().requires_grad_(), weight.detach().requires_grad_()
        fused_token_loss(x, w, bias, palette("released")).backward()

    return {
        "dense targets": lambda: dense_targets(maps, views, torch.float32),
        "palette targets, released": lambda: palette("released"),
        "palette targets, probability": lambda: palette("probability"),
        "dense targets + loss": dense_step,
        "palette targets + loss": palette_step,
        "dense head + targets + loss": dense_head,
        "fused head + targets + loss": fused_head,
    }


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    functions = contestants(options.batch)
    times: dict[str, list[float]] = {name: [] for name in functions}
    for round_number in range(options.rounds + 1):
        for name, function in functions.items():
            seconds = timed(function)
            if round_number:  # the first warms up
                times[name].append(seconds)
    print(f"batch {options.batch}, {options.threads} thread(s)")
    for name, seconds in times.items():
        print(f"{name:32s} {statistics.median(seconds) * 1e3:9.1f} ms")


if __name__ == "__main__":
    main()
