"""What an image costs in training, beside timm's own `train.py`: milliseconds of processor time.

    python benchmarks/bench_peers.py --timm CHECKOUT [--model deit_tiny_patch16_224] [--rounds 2]

Four ways to train the same student on the same images, with RandAugment, one batch size, one thread
and one loader process, on the CPU in float32: timm's train.py plain and with online logit
distillation from a ResNet-18 (CHECKOUT is a checkout of timm's repository), ours plain and with
stored token labels and MixToken. Each runs as a command, on N and on 2 N images; the difference of
the processor times of all its processes is that of N images, without start-up, validation and
saving. The commands take turns, every round; ratios are to timm's plain training of the same round.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from tokenlabel import Box, LabelMap
from tokenlabel.labels import LabelStoreWriter

CLASSES, CELLS = 10, 14
POLICY = "rand-m9-mstd0.5-inc1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timm", type=Path, required=True, help="checkout of timm's repository")
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    parser.add_argument("--images", type=int, default=100, help="N, a multiple of the batch")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for count in (options.images, 2 * options.images):
            _images(place / str(count), count)
        teacher = timm.create_model("resnet18", num_classes=CLASSES)
        save_for_hf(
            teacher,
            place / "teacher",
            model_config={**teacher.pretrained_cfg, "num_classes": CLASSES},
        )
        costs: dict[str, list[float]] = {}
        for number in range(options.rounds):
            for what, milliseconds in _round(options, place, number).items():
                costs.setdefault(what, []).append(milliseconds)
    print(
        f"{options.model}, batch {options.batch}, {options.images} images, timm {timm.__version__}"
    )
    base = costs["timm, plain"]
    for what, values in costs.items():
        ratios = [a / b for a, b in zip(values, base, strict=True)]
        each = ", ".join(f"{value:.0f}" for value in values)
        print(f"  {what:40s} {each} ms an image; {statistics.median(ratios):.3f} x timm's plain")


def _round(options: argparse.Namespace, place: Path, number: int) -> dict[str, float]:
    """Milliseconds of processor time an image, by contestant."""
    found: dict[str, float] = {}
    commands = {
        n: _commands(options, place, n, number) for n in (options.images, 2 * options.images)
    }
    for what in commands[options.images]:
        few, many = (_seconds(commands[n][what]) for n in (options.images, 2 * options.images))
        found[what] = 1000 * (many - few) / options.images
        print(f"round {number + 1}: {what}: {found[what]:.0f} ms an image", file=sys.stderr)
    return found


def _commands(
    options: argparse.Namespace, place: Path, count: int, number: int
) -> dict[str, list[str]]:
    data = place / str(count)
    theirs = [
        sys.executable, str(options.timm / "train.py"), "--data-dir", str(data),
        "--train-split", "train", "--val-split", "val", "--model", options.model,
        "--num-classes", str(CLASSES), "--device", "cpu", "--no-prefetcher", "-j", "1",
        "-b", str(options.batch), "--epochs", "1", "--warmup-epochs", "0", "--opt", "adamw",
        "--lr", "5e-4", "--aa", POLICY, "--color-jitter", "0", "--smoothing", "0.1",
        "--output", str(place / "out"), "--experiment", f"{number}-{count}",
    ]  # fmt: skip
    ours = [
        sys.executable, "-m", "tokenlabel", "train", "--data", str(data), "--model", options.model,
        "--image-size", "224", "--epochs", "1", "--batch-size", str(options.batch), "--workers", "1",
        "--set", f"engine.device_batch={options.batch}", "engine.precision=fp32", "engine.device=cpu",
        "augment.erasing=0.0", f"augment.policy={POLICY}", "augment.scale=[0.08,1.0]",
        "schedule.warmup_epochs=0", "ema.decay=null", "optimizer.clip=null", "model.drop_path=0.0",
    ]  # fmt: skip

    def run(kind: str) -> list[str]:
        return ["--output", str(place / f"{kind}-{number}-{count}")]

    tokens = [
        "--supervision",
        "token-labels",
        "--labels",
        str(data / "labels"),
        "--mix",
        "mixtoken",
    ]
    return {
        "timm, plain": [*theirs, "--log-interval", "1000"],
        "timm, online logit distillation": [
            *theirs, "--log-interval", "1000", "--kd-model-name", f"local-dir:{place / 'teacher'}",
            "--distill-loss-weight", "1.0",
        ],
        "ours, plain": [*ours, "--supervision", "labels", "--mix", "none", *run("plain")],
        "ours, token labels and MixToken": [*ours, *tokens, *run("tokens")],
    }  # fmt: skip


def _seconds(command: list[str]) -> float:
    """Processor time of a command and of the processes that it waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _images(place: Path, count: int) -> None:
    """Photograph-sized JPEGs and a label store; ten images for validation."""
    rng, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)
    with LabelStoreWriter(place / "labels", num_classes=CLASSES) as labels:
        for part, images in (("train", count), ("val", CLASSES)):
            for number in range(images):
                key = f"{number % CLASSES}/{number:05d}.jpg"
                path = place / part / key
                path.parent.mkdir(parents=True, exist_ok=True)
                coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
                coarse.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
                if part == "train":
                    logits = torch.randn(CLASSES, CELLS, CELLS, generator=noise)
                    labels.add(key, LabelMap.from_logits(logits, 5, Box()))


if __name__ == "__main__":
    main()
