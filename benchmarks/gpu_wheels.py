"""Wheels for a machine with a GPU, without a network, that has PyTorch and perhaps other packages.

    python benchmarks/gpu_wheels.py --have FILE [--python 3.12] [--output wheels]

FILE names what that machine has, one package a line (`pip list --format=freeze` of it will do). All
else that the tests and benchmarks need, at the versions of `requirements-dev.lock`, is fetched for
64-bit Linux and CPython. PyTorch, its companions, linters and the documentation's tools are left out.
There:

    python -m pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=site:src python benchmarks/gpu.py
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_NEEDED = re.compile(
    r"torch.*|triton|nvidia-.*|cuda-.*|mkdocs.*|mypy.*|ruff|pre-commit|boto.*|moto.*|s3.*|uv|.*-stubs|types-.*"
)
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (17, 24, 27, 28, 31, 34, 35, 39)),
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--have", type=Path, required=True, help="names of installed packages")
    parser.add_argument("--python", default="3.12", help="the machine's Python")
    parser.add_argument("--output", type=Path, default=Path("wheels"))
    options = parser.parse_args()
    have = {_plain(line) for line in options.have.read_text().splitlines() if line.strip()}
    pins = re.findall(r"^([\w.-]+)==([^ ;\\]+)", (ROOT / "requirements-dev.lock").read_text(), re.M)
    wanted = [
        f"{name}=={version}"
        for name, version in pins
        if _plain(name) not in have and not NOT_NEEDED.fullmatch(_plain(name))
    ]
    for pin in wanted:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
            "--python-version", options.python, "--implementation", "cp", "-d", str(options.output),
            *(word for platform in PLATFORMS for word in ("--platform", platform)), pin,
        ]  # fmt: skip
        if subprocess.run(command).returncode:
            print(f"{pin}: no wheel for Python {options.python}", flush=True)
    size = sum(path.stat().st_size for path in options.output.glob("*.whl")) / 2**20
    print(f"{len(list(options.output.glob('*.whl')))} wheels, {size:.1f} MiB in {options.output}")


def _plain(line: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[=\s;\[]", line.strip(), maxsplit=1)[0]).lower()


if __name__ == "__main__":
    main()
