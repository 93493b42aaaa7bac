"""What surrounds the code: hosted checks, addresses, the citation."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def test_hosted_checks_run_targets_that_are_there() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    made = [
        target
        for job in jobs.values()
        for step in job["steps"]
        for target in re.findall(r"^make ([a-z-]+)", step.get("run", ""), re.M)
    ]
    assert sorted(made) == ["check", "docs", "test", "wheel"]
    assert set(made) <= TARGETS
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/index.md"])
def test_pages_name_targets_that_are_there(page: str) -> None:
    named = re.findall(r"(?:^\$ |`|&& )make ([a-z-]+)", (ROOT / page).read_text(), re.M)
    assert set(named) <= TARGETS


def test_forms_and_citation_are_well_formed() -> None:
    for form in (ROOT / ".github/ISSUE_TEMPLATE").glob("[bi]*.yml"):
        assert {"name", "description", "body"} <= yaml.safe_load(form.read_text()).keys()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_links_of_the_package_index_are_absolute() -> None:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "![maps](docs/a.jpg) [page](docs/b.md#c) [paper](https://arxiv.org/abs/1) [here](#d)"
    assert module.absolute(text, "https://host/me/it") == (
        "![maps](https://host/me/it/raw/HEAD/docs/a.jpg) [page](https://host/me/it/blob/HEAD/docs/b.md#c)"
        " [paper](https://arxiv.org/abs/1) [here](#d)"
    )
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", module.absolute(readme, "https://host/me/it"))
    assert links
    assert all(link.startswith(("https://", "#")) for link in links)
