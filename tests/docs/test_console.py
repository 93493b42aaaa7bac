"""Every console block of README and docs runs, in the order in which a reader would type it.

A reader has 20 small images and no network. So of each command only what `SUBSTITUTED` and `SMALLER`
list is changed: names of models, and options that make the work small. Verbs, their own options and
their order are the page's. A block that needs more says so in the page (`<!-- not run: ... -->`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokenlabel.cli.main import VERBS, main

ROOT = Path(__file__).resolve().parents[2]

# pages by reader: what one page made, the next may use
READERS = {
    "README": ["README.md"],
    "tutorial": ["docs/index.md", "docs/tutorial.md", "docs/judging.md"],
    "segmentation": ["docs/segmentation.md"],
    "imagenet": ["docs/imagenet.md"],
    "recipes": ["docs/recipes.md", "docs/data.md"],
    "own loop": ["docs/own-loop.md"],
    "words": ["docs/words.md"],
}
# blocks that a page says are not run
NOT_RUN = {
    "README": 1,
    "tutorial": 3,
    "segmentation": 6,
    "imagenet": 6,
    "recipes": 1,
    "own loop": 2,
    "words": 1,
}

SUBSTITUTED = {
    "resnet50": "test_resnet",  # 0.5 M parameters, as timm's own tests use
    "lvvit_s": "test_vit",
}
SMALL = ["--batch-size", "4", "--image-size", "64"]
SMALLER = {
    # so long that labels are right: `labels health` ends with 1 where they are not
    "teach": [*SMALL, "--no-pretrained", "--epochs", "20", "--lr", "3e-3", "--holdout", "0"],
    "annotate": ["--image-size", "64"],
    "train": [*SMALL, "--epochs", "1", "--workers", "0", "--set", "schedule.warmup_epochs=0"],
    "eval": ["--workers", "0"],
    "view": ["--port", "0"],
}


class Block:
    """Commands that stand together in a page."""

    def __init__(self, page: str, text: str, not_run: str | None) -> None:
        self.page, self.not_run = page, not_run
        joined = re.sub(r"\\\n\s*", " ", text)
        lines = [line for line in joined.splitlines() if line.strip()]
        assert all(line.startswith("$ ") for line in lines), f"{page}: commands begin with '$ '"
        self.commands = [shlex.split(line[2:], comments=True) for line in lines]


def blocks(page: str) -> Iterator[Block]:
    pattern = r"(?:^<!-- not run: ([^\n]+?) -->\n+)?^```console\n(.*?)^```"
    for found in re.finditer(pattern, (ROOT / page).read_text(), re.M | re.S):
        yield Block(page, found[2], found[1])


def small(words: list[str]) -> list[str]:
    """A command's words after `tokenlabel`, with this file's substitutions."""
    if words[0] == "torchrun":
        words = words[words.index("-m") + 1 :]
    assert words[0] == "tokenlabel", f"not a command of this package: {shlex.join(words)}"
    given = [SUBSTITUTED.get(word, word) for word in words[1:]]
    return given + SMALLER.get(given[0], [])


def photograph(path: Path, rng: np.random.Generator, color: list[int]) -> None:
    """A smooth picture of one hue, as JPEG."""
    coarse = (np.array(color) + rng.integers(-40, 40, (5, 6, 3))).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((80, 64), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the pages speak of: 20 photographs, with parts; pages are left at once."""
    rng = np.random.default_rng(0)
    for name, color in (("ant", [180, 60, 50]), ("bee", [60, 80, 190])):
        for part, count in (("train", 8), ("val", 2)):
            for i in range(1, count + 1):
                photograph(tmp_path / "photos" / part / name / f"{i}.jpg", rng, color)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", lambda _server: None)
    return tmp_path


@pytest.mark.parametrize(
    "reader",
    [
        "README",
        "recipes",
        pytest.param("tutorial", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
@pytest.mark.usefixtures("desk")
def test_every_console_block_runs(reader: str, capsys: pytest.CaptureFixture[str]) -> None:
    for page in READERS[reader]:
        for block in blocks(page):
            for words in block.commands if block.not_run is None else []:
                run(small(words), page, capsys)


def run(words: list[str], page: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints; it must end well, and hints of what comes next must be commands."""
    code = None
    try:
        main(words)
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert not code, f"{page}: tokenlabel {shlex.join(words)}\n{printed.err[-2000:]}"
    for hint in re.findall(r"next: (?:tokenlabel )(.*)", printed.out):
        assert hint.split()[0] in VERBS, hint
    return printed.out


def test_what_is_not_run_is_counted_and_says_why() -> None:
    """So that no block is left out in silence, and no page without a reader."""
    read = {page for pages in READERS.values() for page in pages}
    pages = ["README.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
    assert {page for page in pages if list(blocks(page))} == read
    for reader, of in READERS.items():
        left_out = [block for page in of for block in blocks(page) if block.not_run is not None]
        assert len(left_out) == NOT_RUN[reader], reader
        assert all(block.not_run.startswith("needs ") for block in left_out)
