"""Token targets and loss in palette form against the dense formulation, interleaved in one run.

    python benchmarks/bench_targets.py [--batch 64] [--threads 1] [--rounds 7]

The opponent is the released code's arithmetic on [B, C, S, S] maps: scatter, RoIAlign, softmax and
smoothing to [B, C, 1 + N] targets, then soft cross-entropy by autograd. Times are medians over the
rounds, of processor time with one thread and of wall time with more; memory is the peak that one
call adds in a process of its own, with one thread (a fork of a process with more would hang).
"""

from __future__ import annotations

import argparse
import ctypes
import math
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

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
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


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


def measured_peak(function: Callable[[], object]) -> float:
    """Peak memory in MB that a call adds, in a forked process that ends with it."""
    reader, writer = multiprocessing.Pipe()

    def child() -> None:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 17)  # large blocks go back when freed: no hoard counts
        function()  # a fork has to find the libraries' pages again: not the contestant's memory
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = memory("VmRSS")
        function()
        writer.send(memory("VmHWM") - before)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    peak: float = reader.recv()
    process.join()
    return peak


def memory(field: str) -> float:
    (line,) = re.findall(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) / 1024


def errors(batch: int) -> None:
    """Largest errors against float64 arithmetic on dense targets."""
    maps, views = make_maps(batch), make_views(batch)
    target = token_targets(maps, views, (TOKENS, TOKENS), kind="released", smoothing=SMOOTHING)
    exact = dense_targets(maps, views, torch.float64)
    plain = dense_targets(maps, views, torch.float32)
    flips = [view.to_source[0, 0] < 0 for view in views]
    whole, tokens = target.dense()[:, 0], target.dense()[:, 1:].clone()
    for i, flipped in enumerate(flips):  # the opponent does not flip
        if flipped:
            tokens[i] = tokens[i].view(TOKENS, TOKENS, -1).flip(1).flatten(0, 1)
    ours = torch.cat([whole[:, None], tokens], 1).transpose(1, 2)
    print(f"error of targets: palette {(ours - exact).abs().max():.1e}", end="")
    print(f", dense float32 {(plain - exact).abs().max():.1e}")
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(batch, TOKENS, TOKENS, CLASSES, generator=generator) * 3
    full = target.dense()[:, 1:].double()
    reference = -(full * F.log_softmax(logits.double().flatten(1, 2), -1)).sum(-1).mean()
    difference = abs(token_loss(logits, target).item() - reference.item())
    print(f"error of the loss: {difference:.1e} of {reference:.3f}")


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
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    function()
    return clock() - start


PAIRS = [
    ("palette targets, released", "dense targets"),
    ("palette targets, probability", "dense targets"),
    ("palette targets + loss", "dense targets + loss"),
    ("fused head + targets + loss", "dense head + targets + loss"),
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    errors(min(options.batch, 16))
    for function in contestants(2).values():
        function()  # libraries load what they need: not the contestants' memory
    functions = contestants(options.batch)
    peaks = {}
    if options.threads == 1:
        peaks = {name: measured_peak(function) for name, function in functions.items()}
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(options.rounds):
        for name, function in functions.items():
            function()  # as a loader's worker finds its memory: warmed up by the same work
            times[name] += [timed(function) for _ in range(3)]
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    print(f"batch {options.batch}, {options.threads} thread(s), {options.rounds} rounds of 3")
    for name in functions:
        peak = f" {peaks[name]:9.1f} MB" if peaks else ""
        print(f"{name:30s} {medians[name] * 1e3:9.1f} ms{peak}")
    for ours, dense in PAIRS:
        text = f"{ours:30s} {medians[dense] / medians[ours]:6.1f}x less time"
        print(f"{text}, 1/{peaks[dense] / peaks[ours]:.1f} of the peak memory" if peaks else text)


if __name__ == "__main__":
    main()
