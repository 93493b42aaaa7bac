"""The documentation is true: links lead somewhere, code runs, commands are understood."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from safetensors.torch import save_file

from tokenlabel import recipes
from tokenlabel.cli.main import VERBS, _find_verb
from tokenlabel.cli.settings import all_of
from tokenlabel.runs.recipe_file import override

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def blocks(page: Path, *languages: str) -> list[str]:
    """The contents of a page's fenced blocks of some languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.M | re.S)
    return [content for language, content in found if language in languages]


def anchors(page: Path) -> set[str]:
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M
    )
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("https://", "http://")):
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / place) if place else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name} links to {target}"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the pages speak of: photos of two classes, and a student's weights."""
    from tokenlabel.models import DenseModel

    root = tmp_path_factory.mktemp("desk")
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            (root / "photos" / split / name).mkdir(parents=True)
            Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(
                root / "photos" / split / name / "1.jpg"
            )
    torch.manual_seed(0)
    save_file(DenseModel("test_vit", 2).state_dict(), root / "student.safetensors")
    return root


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_python_runs(page: Path, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's blocks run one after the other, as a reader would type them."""
    monkeypatch.chdir(desk)
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


def commands(page: Path) -> Iterator[list[str]]:
    """Words of every `tokenlabel` command of a page, after `tokenlabel`."""
    for block in blocks(page, "console", "bash", ""):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            line = re.sub(r"\s+#.*", "", line.removeprefix("$ "))
            _, found, rest = line.partition("-m tokenlabel ")
            if not found and line.startswith("tokenlabel "):
                found, rest = "tokenlabel", line.removeprefix("tokenlabel ")
            if found and "..." not in rest:
                yield shlex.split(rest)


WRITTEN = [
    pytest.param(words, id=" ".join([page.name, *words])[:80])
    for page in [*PAGES, ROOT / "README.md"]
    for words in commands(page)
]


@pytest.mark.parametrize("words", WRITTEN)
def test_commands_are_understood(words: list[str]) -> None:
    """Parsed by the verb's own parser, without running it; recipes and their values exist."""
    if words[0].startswith("--"):
        assert words in (["--help"], ["--version"])
        return
    verb, rest = _find_verb(words)
    given = parsed(verb, rest)
    if verb == "train":
        override(recipes.get(given.get("recipe") or "starter"), all_of(given.get("settings", ())))


def parsed(verb: str, words: list[str]) -> dict[str, Any]:
    module, _, name = VERBS[verb][0].partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    given: dict[str, Any] = {}

    @functools.wraps(function)
    def record(**options: Any) -> None:
        given.update(options)

    tyro.cli(record, args=words)
    return given


# scripts import what lies beside them
sys.path[:0] = [str(ROOT / "proof"), str(ROOT / "docs")]
RUNS, PLAN, REPORT, HELP = map(importlib.import_module, ("runs", "plan", "report", "verbs"))


def planned() -> list[Any]:
    """Every run of the proof; the choices that depend on its results fall on the first arms."""
    cifar, tiny = RUNS.images("cifar10", 1000), RUNS.images("tinyimagenet100", 100)
    stages = [*PLAN.stages(cifar, tiny, lambda run: None), *PLAN.TABLES.values()]
    return [run for stage in stages for run in stage]


def test_the_commands_of_the_proof_are_understood() -> None:
    runs = planned()
    assert len({run.name for run in runs}) == len({run.training.command for run in runs})
    stores = dict.fromkeys(run.labels for run in runs if run.labels is not None)
    words = [run.training.command.split()[1:] for run in runs if run.seed == 0]
    words += [labels.annotate() for labels in stores]
    words += [
        RUNS.ANNOTATORS[labels.by].teach(labels.images, labels.annotator)
        for labels in stores
        if not labels.as_it_is
    ]
    for line in {tuple(line[:2] + line[4:]): line for line in words}.values():
        test_commands_are_understood(line)


def test_the_records_of_the_proof_are_of_its_plan() -> None:
    for run in planned():
        file = ROOT / "proof" / "results" / f"{run.name}.json"
        if file.exists():
            assert json.loads(file.read_text())["details"]["command"] == run.training.command


def test_the_page_of_the_proof_says_what_its_records_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    records = REPORT.read_records()
    assert REPORT.page(records) == (ROOT / "docs" / "proof.md").read_text()
    readme = (ROOT / "README.md").read_text()
    assert REPORT.with_summary(readme, records) == readme


WEIGHTS = sorted((ROOT / "proof" / "weights").iterdir())
# the segmentation networks beside them have a recipe and are read by other verbs
STUDENTS = [folder for folder in WEIGHTS if not (folder / "recipe.yaml").exists()]


@pytest.mark.parametrize("folder", STUDENTS, ids=lambda folder: folder.name)
def test_the_weights_of_the_proof_load_with_their_cards(folder: Path) -> None:
    from tokenlabel.evaluation.load import load_classifier

    classifier = load_classifier(folder)
    assert classifier.has_tokens == ("tokens" in folder.name)
    tiny = folder.name.startswith("tinyimagenet100")
    assert classifier.preprocessing.image_size == ((64, 64) if tiny else (32, 32))
    assert ("n01443537" if tiny else "airplane") in classifier.class_names
    assert "## Results" in (folder / "README.md").read_text()


def test_there_are_commands() -> None:
    """So that a change of layout does not silently test nothing."""
    assert len(WRITTEN) > 30
    assert sum(len(blocks(page, "python")) for page in PAGES) > 7


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_scripts_are_well_formed(page: Path) -> None:
    for block in blocks(page, "bash"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_every_verb_has_its_help_on_the_page() -> None:
    page = HELP.on_page_markdown((ROOT / "docs" / "cli.md").read_text())
    for verb in VERBS:
        _, found, section = page.partition(f"\n## {verb}\n")
        assert found
        assert f"usage: tokenlabel {verb}" in section.split("\n## ")[0]


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None,
    reason="needs mkdocs and mkdocstrings",
)
def test_the_site_is_built_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, env={"NO_MKDOCS_2_WARNING": "1"})
    front = (tmp_path / "index.html").read_text()
    assert not re.findall(r'(?:src|<link[^>]*href)="https?://', front)  # no other host is needed
    assert "__palette" in front  # dark mode
    reference = "".join(page.read_text() for page in tmp_path.glob("api*/index.html"))
    for name in ("token_targets", "DenseModel", "load_classifier"):
        assert f'.{name}"' in reference
