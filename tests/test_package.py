"""The package as others get it: a wheel that stands alone and imports in an instant."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_all_that_is_needed_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"tokenlabel/py.typed", "tokenlabel/viewer/page.html"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert all(top == "tokenlabel" or top.endswith(".dist-info") for top in tops)
    sources = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src").rglob("*.py")}
    assert sources <= set(names)


def test_the_wheels_command_answers(wheel: Path, tmp_path: Path) -> None:
    """With the installed requirements, but the package from the wheel alone."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    script = (
        "import sys, tokenlabel; from tokenlabel.cli import main; print(tokenlabel.__file__);"
        "main(['--help'])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.startswith(str(tmp_path))
    assert "usage: tokenlabel VERB" in answer.stdout


def test_importing_it_imports_neither_torch_nor_timm() -> None:
    script = (
        "import sys, tokenlabel, tokenlabel.cli;"
        "heavy = {'torch', 'timm', 'torchvision', 'matplotlib', 'tyro'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT / "src")


def test_dir_shows_the_public_names_only() -> None:
    import tokenlabel

    shown = dir(tokenlabel)
    assert set(tokenlabel.__all__) <= set(shown)
    assert not [name for name in shown if name.startswith("_")]
    assert not {"annotations", "importlib", "wrapt", "Any", "TYPE_CHECKING"} & set(shown)
    for name in shown:
        getattr(tokenlabel, name)


@pytest.mark.slow
def test_it_installs_into_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """With all its requirements, from the package index."""
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [*uv, "pip", "install", "--quiet", "--python", str(python), str(wheel)], check=True
    )
    for words in (["--version"], ["models", "--pattern", "lvvit_t"]):
        command = [str(tmp_path / "env" / "bin" / "tokenlabel"), *words]
        answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "tokenlabel" in answer.stdout or "lvvit_t" in answer.stdout


def test_verbs_named_like_packages_stay_verbs() -> None:
    code = (
        "import tokenlabel as tl; first = tl.quickstart; import tokenlabel.quickstart.run;"
        "assert tl.quickstart is first and callable(tl.compare)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
