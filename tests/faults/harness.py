"""A tiny data set with everything made of it, the verbs that read and write it, and how they are run.

Every verb is one line in `CASES` and every kind of file that a verb reads one in `KINDS`;
`test_table.py` fails while one is missing. All goes through the command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

from tokenlabel.cli.main import VERBS, main

OUT = "OUT"  # stands for the verb's output in the words of a case
WORLD = "WORLD"


@dataclasses.dataclass(frozen=True)
class Case:
    """A verb as it is attacked; `output` is a file's or folder's name, None where nothing is written."""

    words: str
    output: str | None = None
    slow: bool = False  # seconds rather than a fraction of one
    why_not: str = ""  # reason for a verb that is not attacked here

    def line(self, world: Path, out: Path) -> list[str]:
        target = str(out / self.output) if self.output else ""
        return [w.replace(WORLD, str(world)).replace(OUT, target) for w in self.words.split()]


_TRAIN = (
    "train --data WORLD/data --output OUT --model test_vit --image-size 32 --epochs 2"
    " --batch-size 4 --workers 0 --labels WORLD/labels"
    " --set engine.precision=fp32 schedule.warmup_epochs=0"
)
_SEGMENT = (
    "segment train --data WORLD/seg --output OUT --backbone lvvit_t --updates 4 --batch-size 2"
    " --workers 0 --head fcn"
    " --set schedule.warmup_updates=0 engine.precision=fp32 augment.crop=[64,64] model.channels=8"
    " test.short_side=64 test.window=64 test.stride=64"
)

CASES: dict[str, Case] = {
    "annotate": Case(
        "annotate --data WORLD/data --output OUT --model WORLD/annotator --image-size 64"
        " --batch-size 2 --shard-size 4 --device cpu",
        "labels",
    ),
    "annotate boxes": Case(
        "annotate boxes --data WORLD/data --output OUT --file WORLD/boxes.json --grid 4 4", "boxes"
    ),
    "annotate masks": Case(
        "annotate masks --data WORLD/data --output OUT --folder WORLD/masks --grid 4 4", "masks"
    ),
    "annotate segmenter": Case(
        "annotate segmenter --data WORLD/seg/images/training --output OUT --model WORLD/segrun"
        " --grid 4 4 --device cpu",
        "segmented",
        slow=True,
    ),
    "annotate words": Case(
        "annotate words --data WORLD/data --output OUT --model WORLD/annotator --image-size 64"
        " --batch-size 2 --shard-size 4 --device cpu --words 6",
        "words",
    ),
    "annotate text": Case(
        "annotate text", why_not="writes as annotate does; its weights are downloads"
    ),
    "teach": Case(
        "teach --data WORLD/data --output OUT --model test_resnet --no-pretrained --image-size 32"
        " --epochs 2 --batch-size 4 --workers 0 --device cpu --dtype float32 --holdout 0.25",
        "taught",
        slow=True,
    ),
    "pack": Case(
        "pack --data WORLD/data --output OUT --short-side 24 --shard-size 5",
        "packed",
    ),
    "train": Case(_TRAIN, "run", slow=True),
    "eval": Case(
        "eval --data WORLD/data --checkpoint WORLD/run --workers 0 --device cpu --output OUT",
        "eval",
    ),
    "show": Case(
        "show WORLD/data/val/ant/v0.png --labels WORLD/labels-val --checkpoint WORLD/run --output OUT",
        "show.png",
    ),
    "export": Case("export --checkpoint WORLD/run --output OUT", "model", slow=True),
    "export onnx": Case("export --checkpoint WORLD/run --output OUT", "model.onnx", slow=True),
    "export torch": Case("export --checkpoint WORLD/run --output OUT", "model.pt2", slow=True),
    "convert": Case(
        "convert --checkpoint WORLD/weights.pth --model test_vit --output OUT --img-size 32",
        "converted",
    ),
    "view-batch": Case(
        "view-batch --data WORLD/data --labels WORLD/labels --model test_vit --image-size 32"
        " --count 2 --output OUT",
        "batch.png",
    ),
    "labels info": Case("labels info --labels WORLD/labels"),
    "labels verify": Case("labels verify --labels WORLD/labels"),
    "labels health": Case(
        "labels health --labels WORLD/own-labels --data WORLD/data --output OUT", "health"
    ),
    "labels diff": Case("labels diff --first WORLD/labels --second WORLD/labels"),
    "labels merge": Case(
        "labels merge --labels WORLD/labels WORLD/labels-val --output OUT", "merged"
    ),
    "labels average": Case(
        "labels average --labels WORLD/labels WORLD/labels --output OUT", "averaged"
    ),
    "labels import": Case(
        "labels import --tree WORLD/tree --data WORLD/data --output OUT", "imported"
    ),
    "labels export": Case("labels export --labels WORLD/own-labels --output OUT", "tree"),
    "labels push": Case("labels push --labels WORLD/labels --to file://OUT", "pushed"),
    "labels pull": Case("labels pull --labels file://WORLD/labels --output OUT", "pulled"),
    "push": Case(
        "push --repository some/one --checkpoint WORLD/run --dry-run OUT", "card", slow=True
    ),
    "predict": Case(
        "predict WORLD/data --checkpoint WORLD/run --workers 1 --device cpu --output OUT",
        "predictions.csv",
    ),
    "segment train": Case(_SEGMENT, "segrun", slow=True),
    "segment eval": Case(
        "segment eval --data WORLD/seg --checkpoint WORLD/segrun --device cpu --output OUT",
        "segeval",
        slow=True,
    ),
    "segment compare": Case(
        "segment compare --data WORLD/seg --checkpoints WORLD/segrun --against WORLD/segrun"
        " --device cpu --output OUT",
        "compared.json",
        slow=True,
    ),
    "segment predict": Case(
        "segment predict --images WORLD/seg/images/validation --checkpoint WORLD/segrun"
        " --device cpu --output OUT",
        "predicted",
        slow=True,
    ),
    "recipes list": Case("recipes list", why_not="reads and writes no file"),
    "recipes show": Case("recipes show starter", why_not="reads and writes no file"),
    "recipes copy": Case("recipes copy starter OUT", "starter.yaml", why_not="reads no file"),
    "doctor": Case("doctor --data WORLD/data --split train --labels WORLD/labels"),
    "models": Case("models", why_not="reads and writes no file"),
    "view": Case("view", why_not="a server: attacked in tests/viewer"),
    "compare": Case(
        "compare", why_not="annotate and train in a row, each in a folder of its own: each is here"
    ),
    "quickstart": Case(
        "quickstart", why_not="teach, annotate, train and eval in a row: each is here"
    ),
}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file that verbs read, one example, and the verbs that read it."""

    path: str  # in the world
    read_by: tuple[str, ...]
    checked: bool = True  # a checksum covers it: a change is found or has no effect
    text: bool = False


KINDS: dict[str, Kind] = {
    "shard": Kind("labels/shard-00000.tll", ("labels verify", "labels merge", "labels diff")),
    "index": Kind("labels/index.tli", ("labels verify", "labels info")),
    "manifest": Kind("labels/manifest.json", ("labels verify", "labels info"), text=True),
    "weights": Kind("run/checkpoints/BEST/model.safetensors", ("eval",)),
    "average": Kind("run/checkpoints/BEST/ema.safetensors", ("eval",)),
    "sums": Kind("run/checkpoints/BEST/SHA256SUMS", ("eval",), text=True),
    "optimizer": Kind("run/checkpoints/BEST/optimizer.pt", ("eval",)),
    "progress": Kind("run/checkpoints/BEST/progress.json", ("eval",), text=True),
    "best": Kind("run/checkpoints/best", ("eval",)),
    "recipe": Kind("run/recipe.yaml", ("eval", "push"), checked=False, text=True),
    "environment": Kind("run/environment.json", ("eval", "push"), checked=False, text=True),
    "results": Kind("run/results.json", ("eval", "push"), checked=False, text=True),
    "evaluation": Kind("run/evaluation/own/results.json", ("push",), checked=False, text=True),
    "vocabulary": Kind("words/vocabulary.safetensors", ("verify words",)),
    "metrics": Kind("run/metrics.jsonl", ("eval",), checked=False, text=True),
    "checkpoint file": Kind("weights.pth", ("convert",), checked=False),
    "timm weights": Kind("timm/model.safetensors", ("eval timm",), checked=False),
    "timm config": Kind("timm/config.json", ("eval timm",), checked=False, text=True),
    "released label": Kind("tree/ant/0.pt", ("labels import",), checked=False),
    "image": Kind("data/train/ant/0.png", ("annotate", "labels import"), checked=False),
    "jpeg": Kind("data/train/bee/1.jpg", ("annotate",), checked=False),
    "array": Kind("arrays/ant/0.npy", ("annotate arrays",), checked=False),
    "archive": Kind("data.tar", ("annotate tar",), checked=False),
    "coco": Kind("boxes.json", ("annotate boxes",), checked=False, text=True),
    "annotation mask": Kind("masks/ant/0.png", ("annotate masks",), checked=False),
    "class list": Kind("seg/classes.txt", ("segment eval",), checked=False, text=True),
    "mask": Kind("seg/annotations/validation/0.png", ("segment eval",), checked=False),
}

READERS: dict[str, Case] = {
    **CASES,
    "eval timm": Case(
        "eval --data WORLD/data --model WORLD/timm --workers 0 --device cpu --output OUT", "eval"
    ),
    "verify words": Case("labels verify --labels WORLD/words"),
    "annotate arrays": Case(
        CASES["annotate"].words.replace("WORLD/data ", "WORLD/arrays "), "labels"
    ),
    "annotate tar": Case(
        CASES["annotate"].words.replace("WORLD/data ", "WORLD/data.tar "), "labels"
    ),
}


# -- running -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Ended:
    code: int
    said: str  # both streams
    error: str  # the standard error alone
    trace: str  # of an exception that nobody caught

    def fault(self, *, codes: tuple[int, ...] = (0, 1, 2, 3)) -> str | None:
        """What is wrong with such an end, or None: a traceback, an odd code, no single line."""
        if self.trace or "Traceback (most recent call last)" in self.said:
            return f"traceback: {self.trace or self.said}"[-1500:]
        if self.code not in codes:
            return f"exit code {self.code}: {self.said[-500:]}"
        lines = [line for line in self.error.splitlines() if line.startswith("tokenlabel: ")]
        if self.code == 2 and len(lines) != 1:
            return f"exit 2 with {len(lines)} lines: {self.error[-800:]}"
        return None


def call(words: list[str]) -> Ended:
    """Run the command line in this process."""
    out, error, trace, code = io.StringIO(), io.StringIO(), "", 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            trace, code = traceback.format_exc(), -1
    return Ended(code, out.getvalue() + error.getvalue(), error.getvalue(), trace)


def run(
    words: list[str], *, kill_after: float | None = None, before: Callable[[], Any] = lambda: None
) -> Ended:
    """Run the command line in a forked process group, killed as one after some seconds if given.

    Code -9: it was killed. `before` is called in the new process.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.setpgid(0, 0)
            torch.set_num_threads(1)
            before()
            ended = call(words)
            os.write(write, json.dumps(dataclasses.astuple(ended)).encode()[-1_000_000:])
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    if kill_after is not None:
        deadline = time.monotonic() + kill_after
        while (
            time.monotonic() < deadline
            and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    with os.fdopen(read, "rb") as stream:
        message = stream.read()
    _, status = os.waitpid(pid, 0)
    if message:
        return Ended(*json.loads(message))
    code = os.waitstatus_to_exitcode(status)
    return Ended(code, "", "", "" if code == -9 else f"the process ended with {code}")


def finish(words: list[str]) -> str | None:
    """Run what was stopped to its end; the fault of that end, or None.

    A verb that was stopped after it had written all says that its output is there already.
    """
    ended = run(words)
    done = ended.code == 2 and "exists already" in ended.error
    return None if done else ended.fault(codes=(0, 1))


# -- comparing ---------------------------------------------------------------------------------------


def contents(place: Path) -> dict[str, Any]:
    """What was written: bytes by name; the values of JSON files one by one, of YAML as text."""
    found: dict[str, Any] = {}
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    for file in files:
        name = file.name if file == place else file.relative_to(place).as_posix()
        if file.suffix in (".json", ".jsonl") and file.name != "manifest.json":
            for number, line in enumerate(_lines(file)):
                found |= {f"{name}:{number}:{key}": value for key, value in _leaves(line, "")}
        else:
            found[name] = file.read_bytes()
    return found


def _lines(file: Path) -> list[Any]:
    text = file.read_text()
    return (
        [json.loads(line) for line in text.splitlines()]
        if file.suffix == ".jsonl"
        else [json.loads(text)]
    )


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    else:
        yield path, value


# of one start, and equal in two runs only by chance
_OF_THE_MOMENT = (".started", ".sessions", ".memory_gb")


def differences(expected: list[dict[str, Any]], found: dict[str, Any]) -> list[str]:
    """Names of what differs from two undisturbed runs, where those agree (times do not)."""
    first, second = expected
    same = {
        name
        for name in first
        if name in second and first[name] == second[name] and not name.endswith(_OF_THE_MOMENT)
    }
    wrong = [name for name in sorted(same) if found.get(name) != first[name]]
    files = {name.split(":")[0] for name in {*first, *second}}
    extra = {name.split(":")[0] for name in found} - files
    return wrong + sorted(f"{name} (left behind)" for name in extra)


# -- the world ---------------------------------------------------------------------------------------


def build(root: Path) -> Path:
    """Everything that the cases read, made by the verbs themselves where they can."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for label, kind in enumerate(("ant", "bee")):
            folder = root / "data" / part / kind
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (40, 48, 3)) + 100 * label
                suffix = "jpg" if number % 2 else "png"
                name = f"{number}.{suffix}" if part == "train" else f"v{number}.{suffix}"
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
    shutil.make_archive(str(root / "data"), "tar", root / "data" / "train")
    for part in ("training", "validation"):
        for kind in ("images", "annotations"):
            (root / "seg" / kind / part).mkdir(parents=True)
        for number in range(4 if part == "training" else 2):
            mask = rng.integers(0, 3, (4, 4), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
            picture = Image.fromarray((mask[..., None] * 80 + np.zeros(3)).astype(np.uint8))
            picture.save(root / "seg" / "images" / part / f"{number}.jpg")
            Image.fromarray(mask).save(root / "seg" / "annotations" / part / f"{number}.png")
    (root / "seg" / "classes.txt").write_text("sky\nland\n")
    names = [f"{kind}/{n}.{'jpg' if n % 2 else 'png'}" for kind in ("ant", "bee") for n in range(6)]
    boxes = {
        "images": [
            {"id": number, "file_name": name, "width": 48, "height": 40}
            for number, name in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1 + n // 6, "bbox": [4, 4, 20, 20]}
            for n in range(len(names))
        ],
    }
    for number, name in enumerate(names):
        mask = (root / "masks" / name).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 48), number // 6, np.uint8)).save(mask)
        array = (root / "arrays" / name).with_suffix(".npy")
        array.parent.mkdir(parents=True, exist_ok=True)
        np.save(array, rng.integers(0, 4096, (40, 48, 3), dtype=np.uint16))
    (root / "boxes.json").write_text(json.dumps(boxes))
    tree(root)
    torch.manual_seed(0)
    timm.models.save_for_hf(
        timm.create_model("test_resnet", num_classes=2),
        str(root / "annotator"),
        model_config={"label_names": ["ant", "bee"]},
        safe_serialization=True,
    )
    for name, out in (
        ("annotate", "labels"),
        ("train", "run"),
    ):
        make(root, CASES[name].words, root / out)
    val = CASES["annotate"].words.replace("--data WORLD/data", "--data WORLD/data --split val")
    make(root, val, root / "labels-val")
    make(root, CASES["labels import"].words, root / "own-labels")
    best = (root / "run" / "checkpoints" / "best").read_text().strip()
    (root / "run" / "checkpoints" / "BEST").symlink_to(best)
    return root


def build_slow(root: Path) -> None:
    """What only slow cases read."""
    make(root, CASES["export"].words, root / "timm")
    make(root, CASES["segment train"].words, root / "segrun")
    make(root, CASES["annotate words"].words, root / "words")
    make(root, CASES["eval"].words, root / "run" / "evaluation" / "own")
    from safetensors.torch import load_file

    torch.save(load_file(root / "timm" / "model.safetensors"), root / "weights.pth")


def make(root: Path, words: str, out: Path) -> None:
    line = [w.replace(WORLD, str(root)).replace(OUT, str(out)) for w in words.split()]
    ended = run(line)
    assert ended.code == 0, f"{' '.join(line)}: {ended.said[-2000:]}{ended.trace}"


def tree(root: Path) -> None:
    """Released labels of the training images."""
    generator = torch.Generator().manual_seed(0)
    for label, name in enumerate(("ant", "bee")):
        for number in range(6):
            path = root / "tree" / name / f"{number}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            scores = (
                torch.rand(2, 3, 3, generator=generator) + torch.tensor([4.0, 0])[:, None, None]
            )
            classes = torch.tensor([label, 1 - label])[:, None, None].expand(2, 3, 3)
            torch.save(torch.stack([scores, classes.float()]).half(), path)


def preload() -> None:
    """Import what the verbs need, once, so that forked processes start at once."""
    import importlib

    for module in sorted({target.partition(":")[0] for target, _ in VERBS.values()}):
        importlib.import_module(module)
    for module in (
        "tokenlabel.training", "tokenlabel.evaluation.load", "tokenlabel.annotators.run",
        "tokenlabel.labels.released", "tokenlabel.export.timm_folder", "tokenlabel.data.open",
    ):  # fmt: skip
        importlib.import_module(module)


def verb_of(name: str) -> str:
    """The verb of a case: cases of one verb share its first words."""
    words = READERS[name].words.split()
    return next(v for v in (" ".join(words[:2]), words[0]) if v in VERBS)


def steps_of(text: str) -> str:
    """Output without what changes from run to run."""
    return re.sub(r"\d+(\.\d+)?", "#", text)


if __name__ == "__main__":  # python tests/faults/harness.py FOLDER: the world, to look at
    torch.set_num_threads(1)
    preload()
    build(Path(sys.argv[1]))
    build_slow(Path(sys.argv[1]))
