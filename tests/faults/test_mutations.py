"""Damaged files end in one line, in an equal result, or are found by `labels verify`."""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from harness import KINDS, READERS, call, contents, steps_of

QUICK = (
    "shard",
    "index",
    "manifest",
    "recipe",
    "environment",
    "released label",
    "image",
    "array",
    "coco",
)
VALUES = (
    "null",
    "[]",
    "{}",
    '""',
    "-1",
    "1e999",
    "9" * 400,
    '"\\u0000../x"',
    "[" * 3000,
    "*a",
    "nan",
)


def mutated(content: bytes, rng: random.Random, text: bool) -> bytes:
    """One of many damages: as disks, transfers and editors make them."""
    at = rng.randrange(len(content) + 1)
    size = min(len(content) - at, rng.choice((1, 4, 64, 512)))
    ways = [
        lambda: content[:at],
        lambda: content[:at] + rng.randbytes(size) + content[at + size :],
        lambda: content[:at] + bytes(size) + content[at + size :],
        lambda: content[:at] + content[at + size :],
        lambda: content[:at] + rng.randbytes(16) + content[at:],
        lambda: content[at:] + content[:at],
        lambda: b"",
        lambda: content + content,
    ]
    if content and at < len(content):
        bit = content[at] ^ (1 << rng.randrange(8))
        ways += [lambda: content[:at] + bytes([bit]) + content[at + 1 :]] * 8
    if text:
        ways += [lambda: _replaced_value(content, rng)] * 12
    return rng.choice(ways)()


def _replaced_value(content: bytes, rng: random.Random) -> bytes:
    """A value of a JSON or YAML text replaced by another that still may parse."""
    lines = content.split(b"\n")
    number = rng.randrange(len(lines))
    key, colon, value = lines[number].partition(b":")
    end = b"," if value.rstrip().endswith(b",") else b""
    if colon:
        lines[number] = key + b": " + rng.choice(VALUES).encode() + end
    else:
        del lines[number]
    return b"\n".join(lines)


def mutation_loop(name: str, world: Path, place: Path, count: int) -> dict[str, int]:
    """Damage one kind of file so many times; how the readers ended."""
    kind, rng = KINDS[name], random.Random(name)
    file, ends = world / kind.path, {"refused": 0, "equal": 0, "said": 0, "read": 0}
    original = file.read_bytes()

    def read(reader: str) -> tuple[int, object]:
        case, out = READERS[reader], place / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        ended = call(case.line(world, out))
        fault = ended.fault()
        assert fault is None, f"{reader} of a damaged {name}: {fault}"
        said = steps_of(ended.said.replace(str(world), ""))
        written = ended.code == 0 and case.output and "is damaged" not in said
        return ended.code, contents(out / case.output) if written else said

    try:
        for reader in kind.read_by:
            good = read(reader)
            for _ in range(max(count // len(kind.read_by), 1)):
                damaged = mutated(original, rng, kind.text)
                file.write_bytes(damaged)
                (place / "damaged").write_bytes(damaged)
                found = read(reader)
                if found[0] == 2 or (found[0] == 1 and good[0] == 0):
                    ends["refused"] += 1
                elif found == good:
                    ends["equal"] += 1
                elif "is damaged" in str(found[1]):  # another checkpoint is taken, and it is said
                    ends["said"] += 1
                else:
                    assert not kind.checked, f"{reader} of a damaged {name} is silently wrong"
                    ends["read"] += 1
    finally:
        file.write_bytes(original)
    return ends


@pytest.mark.parametrize("name", QUICK)
def test_quick_mutations(name: str, quick_world: Path, tmp_path: Path) -> None:
    mutation_loop(name, quick_world, tmp_path, count=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_mutations(name: str, world: Path, tmp_path: Path) -> None:
    print(name, mutation_loop(name, world, tmp_path, count=60))
