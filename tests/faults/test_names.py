"""Classes that an attacker named are text in all that is written, printed and drawn."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from harness import CASES, call, preload

NAMES = (
    "<img src=x onerror=hit()>",
    "\"'`${hit()}`'\" $\\frac{$",
    "\u202egnp.evil<script>hit()<",
    "[red] :cat: [\\bold]",
    "``` # heading | a | b ![x](y)",
    "_hidden &lt;b&gt; {0} %s",
    "two\nlines\r\tand\x1b[31m more",
)
VERBS = (
    "annotate", "annotate val", "train", "eval run", "eval", "show", "show html", "view-batch",
    "predict", "labels info", "labels verify", "labels push", "labels export", "labels import",
    "export", "push", "segment train", "segment eval", "segment predict",
)  # fmt: skip
WORDS = {
    **{name: case.words for name, case in CASES.items()},
    "annotate val": CASES["annotate"].words.replace("/data", "/data --split val"),
    "eval run": CASES["eval"].words.replace(" --output OUT", ""),
    "show": "show WORLD/0.png --checkpoint WORLD/run --output OUT",
    "show html": "show WORLD/0.png --checkpoint WORLD/run --output OUT",
    "labels export": CASES["labels export"].words.replace("own-labels", "labels"),
}
OUTPUTS = {
    "annotate": "labels", "annotate val": "labels-val", "labels export": "tree", "train": "run",
    "segment train": "segrun", "show": "show.png", "show html": "show.html", "predict": "p.csv",
    "view-batch": "batch.png",
}  # fmt: skip


def build(root: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for name in NAMES:
            (root / "data" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "data" / part / name / f"{number}.png")
    Image.fromarray(pixels).save(root / "0.png")
    for part in ("training", "validation"):
        for kind in ("images", "annotations"):
            (root / "seg" / kind / part).mkdir(parents=True)
        for number in range(4):
            mask = rng.integers(0, 8, (4, 4), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
            picture = Image.fromarray((mask[..., None] * 30 + np.zeros(3)).astype(np.uint8))
            picture.save(root / "seg" / "images" / part / f"{number}.jpg")
            Image.fromarray(mask).save(root / "seg" / "annotations" / part / f"{number}.png")
    lines = ["[/bold]", *(re.sub(r"[\r\n]", " ", name) for name in NAMES[1:])]
    (root / "seg" / "classes.txt").write_text("\n".join(lines))
    torch.manual_seed(0)
    timm.models.save_for_hf(
        timm.create_model("test_resnet", num_classes=len(NAMES)),
        str(root / "annotator"),
        model_config={"label_names": list(NAMES)},
        safe_serialization=True,
    )


@pytest.mark.slow
def test_class_names_are_text_everywhere(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    preload()
    build(tmp_path)
    for verb in VERBS:
        out = tmp_path / OUTPUTS.get(verb, f"out-{verb}")
        words = [
            word.replace("WORLD", str(tmp_path)).replace("OUT", str(out))
            for word in WORDS[verb].split()
        ]
        ended = call(words)
        assert (ended.code, ended.fault()) == (0, None), f"{verb}: {ended.said}{ended.trace}"
    pages = [file for file in tmp_path.rglob("*") if file.suffix in (".html", ".md")]
    assert len(pages) > 5
    for page in pages:
        text = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page.read_text())
        assert not re.search(r"<img src=x|<script>hit|<b>|^# heading|(?<!\\)!\[", text, re.M), page
