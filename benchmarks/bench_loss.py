"""The token loss beside what memory allows, and beside plain classification of tokens.

    python benchmarks/bench_loss.py [--device cpu] [--batch 64] [--rounds 9]

[batch, 196, 1000] logits, forward and backward. The limit is a log-softmax into a buffer, an
exponential in place and one write of the gradient: any loss that reads all logits once and writes
their gradient once does that much. The opponent is torch's cross-entropy with one hard label a
token. All take turns in one run; times are processor seconds of one thread on a CPU, wall seconds
between synchronizations on a GPU.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from bench_step import GRID, seconds
from bench_targets import CLASSES, make_maps, make_views
from torch.nn import functional as F

from tokenlabel import token_targets
from tokenlabel.losses import token_loss


def contestants(
    batch: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Callable[[], object]]:
    """What is timed: the limit first."""
    logits = torch.randn(batch, *GRID, CLASSES, device=device).to(dtype)
    target = token_targets(make_maps(batch), make_views(batch), GRID).to(device)
    hard = torch.randint(CLASSES, (logits[..., 0].numel(),), device=device)
    buffer = torch.empty(logits.shape, device=device)
    gradient = torch.empty_like(logits)

    def limit() -> None:
        if dtype == torch.float32:
            torch.log_softmax(logits, -1, out=buffer)
        else:
            buffer.copy_(torch.log_softmax(logits, -1))
        gradient.copy_(buffer.exp_())

    def ours() -> None:
        token_loss(logits.detach().requires_grad_(), target).backward()

    def plain() -> None:
        leaf = logits.detach().requires_grad_()
        F.cross_entropy(leaf.flatten(0, 2), hard).backward()

    return {"limit": limit, "token loss": ours, "cross-entropy, hard labels": plain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    for dtype in (torch.float32, torch.bfloat16):
        functions = contestants(options.batch, device, dtype)
        times: dict[str, list[float]] = {name: [] for name in functions}
        for number in range(options.rounds + 1):
            for name, function in functions.items():
                spent = seconds(function, device)
                if number:  # the first round warms up
                    times[name].append(spent)
        print(f"[{options.batch}, {GRID[0] * GRID[1]}, {CLASSES}] {dtype}, {device}")
        for name, values in times.items():
            ratios = [a / b for a, b in zip(values, times["limit"], strict=True)]
            print(
                f"  {name:28s} {statistics.median(values) * 1e3:8.2f} ms,"
                f" {statistics.median(ratios):.2f} x the limit"
                f" ({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds)"
            )


if __name__ == "__main__":
    main()
