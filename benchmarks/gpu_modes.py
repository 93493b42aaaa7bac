"""Every way in which the engine computes on a GPU, against float32 on the CPU: the same losses?

    python benchmarks/gpu_modes.py [--device cuda] [--updates 24] [--batch 64]

A small LV-ViT learns synthetic images and labels from the same start, once on the CPU and once in
each mode: float32, bf16, fp16 with its loss scaler, compiled, channels last, activation checkpoints, a
chunked token head, and with a process group of one rank DDP (NCCL), synchronized batch norm and FSDP2.
Prints the largest difference of a loss and seconds; exits with 1 where a mode differs by more than
its arithmetic explains. `--device cpu` rehearses the modes that a CPU has.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tokenlabel import Box, LabelMap, recipes
from tokenlabel.labels import LabelStoreWriter
from tokenlabel.runs.recipe import Recipe
from tokenlabel.runs.recipe_file import override
from tokenlabel.training.student import train

CLASSES, IMAGES, SIDE, CELLS = 10, 256, 32, 8
TOLERANCE = {"fp32": 2e-3, "bf16": 0.1, "fp16": 0.05}  # of losses around 2
ALONE = {
    "float32": (),
    "bf16": ("engine.precision=bf16",),
    "fp16, loss scaler": ("engine.precision=fp16",),
    "bf16, compiled": ("engine.precision=bf16", "engine.compile=true"),
    "channels last": ("engine.channels_last=true",),
    "activation checkpoints": ("engine.activation_checkpointing=true",),
    "token head in chunks": ("engine.token_head_chunk=2",),
}
IN_A_GROUP = {
    "DDP": (),
    "DDP, bf16": ("engine.precision=bf16",),
    "DDP, synchronized batch norm": ("engine.sync_batchnorm=true",),
    "FSDP2": ("engine.sharding=fsdp",),
    "FSDP2, bf16": ("engine.sharding=fsdp", "engine.precision=bf16"),
}
ON_GPUS_ONLY = ("fp16, loss scaler", "bf16, compiled", "DDP, synchronized batch norm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--updates", type=int, default=24)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        recipe = _recipe(Path(place), options)
        reference = losses(recipe, Path(place) / "reference", ("engine.device=cpu",))
        here = ("engine.device=cpu",) if options.device == "cpu" else ()
        failed = False
        for name, changes in {**ALONE, **IN_A_GROUP}.items():
            if options.device == "cpu" and name in ON_GPUS_ONLY:
                continue
            if name in IN_A_GROUP:
                _be_a_group_of_one()
            begun = time.perf_counter()
            found = losses(recipe, Path(place) / name.replace(" ", "-"), (*here, *changes))
            seconds = time.perf_counter() - begun
            # what the loss scaler of fp16 skipped changed nothing: as many updates are compared
            skipped = len(reference) - len(found)
            difference = float(np.abs(np.array(found) - reference[: len(found)]).max())
            precision = next((c[17:] for c in changes if c.startswith("engine.precision=")), "fp32")
            same = difference <= TOLERANCE[precision]
            failed |= not same
            print(
                f"{name:30s} largest difference of a loss {difference:.1e}"
                f" {'' if same else '(too much) '}in {seconds:.1f} s"
                f"{f', {skipped} updates skipped' if skipped else ''}",
                flush=True,
            )
    sys.exit(failed)


def losses(recipe: Recipe, folder: Path, changes: tuple[str, ...]) -> list[float]:
    """The loss of every update that was made."""
    result = train(override(recipe, changes), folder)
    return [entry["loss"] for entry in result.metrics if "loss" in entry]


def _recipe(place: Path, options: argparse.Namespace) -> Recipe:
    rng = np.random.default_rng(0)
    noise = torch.Generator().manual_seed(0)
    with LabelStoreWriter(place / "labels", num_classes=CLASSES) as labels:
        for number in range(IMAGES):
            key = f"{number % CLASSES}/{number:04d}.png"
            path = place / "images" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path)
            logits = torch.randn(CLASSES, CELLS, CELLS, generator=noise)
            labels.add(key, LabelMap.from_logits(logits, 5, Box()))
    return override(
        recipes.get("cifar10_lvvit"),
        [
            f"schedule.max_steps={options.updates}",
            f"schedule.batch_size={options.batch}",
            f"engine.device_batch={options.batch}",
            f"data.train={place / 'images'}",
            f"data.labels={place / 'labels'}",
            "data.workers=0",
            "engine.precision=fp32",
            "schedule.epochs=100",
            "optimizer.name=adamw",
            "optimizer.lr=1e-3",
            "log_every=1",
            "validate_every=1000",
        ],
    )


def _be_a_group_of_one() -> None:
    """What torchrun sets for its only process."""
    if "WORLD_SIZE" in os.environ:
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


if __name__ == "__main__":
    main()
