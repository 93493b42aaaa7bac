"""The GPU's part of the checks and measurements, in stages: `make gpu`.

    python benchmarks/gpu.py [--budget 9m] [--cifar10 FOLDER] [--output FOLDER] [--rehearse]

The stages that tell most come first; each has its own time limit, and none begins that would not fit
into the budget. What is done is kept in `stages.json` of the output folder, so the same command goes on
another day with what is left (a stage that failed is tried again). `docs/gpu.md` is written from it.
`--rehearse` runs every stage on the CPU with tiny sizes, to find out beforehand what would break, and
writes its page beside its `stages.json`. The students of the proof need CIFAR-10 (`--cifar10`, as in
`proof/run.py`) and are left out without it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tokenlabel.compare.budget import hours

ROOT = Path(__file__).resolve().parents[1]
KEPT_LINES = 60  # of a stage's output
PATIENCE = 10  # of a rehearsal: how many times as long a CPU may take


@dataclass(frozen=True)
class Stage:
    """A command, what it answers, and how long it may take."""

    name: str
    question: str
    command: tuple[str, ...]
    seconds: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", default="9m", help="wall-clock time of all stages: 9m, 1h")
    parser.add_argument("--cifar10", help="folder with train and val, for the proof's students")
    parser.add_argument("--output", type=Path, help="where stages.json is kept")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny sizes")
    options = parser.parse_args()
    if not options.rehearse and not torch.cuda.is_available():
        sys.exit("no CUDA GPU here: --rehearse runs the stages on the CPU, with tiny sizes")
    folder = options.output or Path("runs/gpu-rehearsal" if options.rehearse else "runs/gpu")
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "stages.json"
    known: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    ends = time.monotonic() + 3600 * hours(options.budget)
    for stage in stages(options):
        if known.get(stage.name, {}).get("exit") == 0:
            continue
        left, limit = ends - time.monotonic(), stage.seconds * (PATIENCE if options.rehearse else 1)
        if left < min(limit, 60):
            print(f"{stage.name}: left for another day, {max(left, 0):.0f} s remain", flush=True)
            continue
        known[stage.name] = ran(stage, min(left, limit), options.rehearse)
        kept.write_text(json.dumps(known, indent=2))
        page = folder / "gpu.md" if options.rehearse else ROOT / "docs/gpu.md"
        page.write_text(report(known))
    failed = [name for name, result in known.items() if result["exit"] != 0]
    print(f"{len(known) - len(failed)} stages done; failed: {', '.join(failed) or 'none'}")
    sys.exit(bool(failed))


def stages(options: argparse.Namespace) -> Iterator[Stage]:
    """The stages by what they are worth: 9 minutes bring the first four."""
    small = options.rehearse
    device = ("--device", "cpu" if small else "cuda")

    def python(script: str, *arguments: str) -> tuple[str, ...]:
        return (sys.executable, str(ROOT / script), *arguments)

    tests = ["tests/annotators/test_online.py"] if small else ["tests", "-n", "12"]
    yield Stage(
        "suite",
        "Does the test suite pass on a GPU?",
        (sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests),
        180,
    )
    yield Stage(
        "step",
        "How much do token labels slow down a training step of LV-ViT-S?",
        python(
            "benchmarks/bench_step.py",
            *device,
            *_sizes(small, "--batch", 2, 128, "--rounds", 1, 20),
        ),
        70,
    )
    if options.cifar10:
        yield Stage(
            "student",
            "What accuracy does a converged student reach?",
            python(
                "proof/run.py", "--cifar10", options.cifar10, "--workers", "4",
                "--per-class", "5000", "--rate", "6000", "--match", "lvvit-(labels|tokens)",
                "--budget", "1m" if small else "4m", *(("--per-class", "20") if small else ()),
            ),
            270,
        )  # fmt: skip
    yield Stage(
        "modes",
        "Do all precision and parallelism modes give the losses of float32 on the CPU?",
        python(
            "benchmarks/gpu_modes.py", *device, *_sizes(small, "--updates", 2, 24, "--batch", 8, 64)
        ),
        120,
    )
    yield Stage(
        "loss",
        "How close is the token loss to the memory bandwidth limit?",
        python(
            "benchmarks/bench_loss.py",
            *device,
            *_sizes(small, "--batch", 2, 128, "--rounds", 1, 20),
        ),
        40,
    )
    yield Stage(
        "lvvit",
        "How fast is LV-ViT-S compared with standard mixed precision and with the card's peak?",
        python(
            "benchmarks/bench_model_lvvit.py", *device, "--no-memory" if small else "--mfu",
            *_sizes(small, "--batch", 1, 128, "--rounds", 1, 10),
        ),
        90,
    )  # fmt: skip
    yield Stage(
        "engine",
        "How much overhead does the engine add to a bare loop?",
        python(
            "benchmarks/bench_engine.py", *_sizes(small, "--batch", 2, 128, "--steps", 3, 40),
            *(("--size", "32") if small else ("--precision", "bf16", "--compile")),
        ),
        90,
    )  # fmt: skip
    yield Stage(
        "input",
        "How many images per second do the data loaders and the annotator process?",
        python("benchmarks/gpu_input.py", *device, *_sizes(small, "--images", 64, 8192)),
        90,
    )


def _sizes(small: bool, *values: str | int) -> Iterator[str]:
    """Options given as name, value of the rehearsal, value on a GPU."""
    for name, rehearsed, real in zip(values[::3], values[1::3], values[2::3], strict=True):
        yield from (str(name), str(rehearsed if small else real))


def ran(stage: Stage, seconds: float, on_cpu: bool) -> dict[str, Any]:
    """A stage's exit status, seconds and last lines of output; 124 where it timed out."""
    print(f"{stage.name}: {stage.question} (at most {seconds:.0f} s)", flush=True)
    begun = time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    if on_cpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    try:
        done = subprocess.run(
            stage.command, cwd=ROOT, env=environment, timeout=seconds, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
        )  # fmt: skip
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, output = 124, (late.stdout or b"").decode(errors="replace")
    took = time.monotonic() - begun
    print(f"  {'done' if code == 0 else f'failed ({code})'} in {took:.0f} s", flush=True)
    command = " ".join(["python", *(_short(word) for word in stage.command[1:])])
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    return {
        "question": stage.question, "command": command, "exit": code, "seconds": round(took, 1),
        "machine": machine(), "output": lines[-KEPT_LINES:],
    }  # fmt: skip


def _short(word: str) -> str:
    return word.removeprefix(f"{ROOT}/")


def machine() -> str:
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"{card}, {os.cpu_count()} cores, {versions}"


def report(known: dict[str, Any]) -> str:
    """The page: every stage with its command, machine and output."""
    lines = ["# On a GPU", "", "Written by `make gpu` from what it measured.", ""]
    for name, result in known.items():
        state = {0: "passed", 124: "timed out"}.get(result["exit"], "failed")
        lines += [
            f"## {result['question']}",
            "",
            f"Stage `{name}`, {state} in {result['seconds']:.0f} s ({result['machine']}):",
            "",
            "```",
            f"$ {result['command']}",
            *result["output"],
            "```",
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
