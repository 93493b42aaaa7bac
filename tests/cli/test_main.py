"""The command line answers at once, in words, and with the right exit code."""

from __future__ import annotations

import errno
import importlib
import subprocess
import sys

import pytest

from tokenlabel.cli.main import VERBS, main
from tokenlabel.errors import InputError


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(words)
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize("verb", [[], *[verb.split() for verb in VERBS]], ids=" ".join)
def test_help_needs_no_torch(verb: list[str]) -> None:
    code = (
        "import sys; from tokenlabel.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'timm', 'torchvision', 'matplotlib', 'accelerate'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", code, *verb, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    assert "Args:" not in done.stdout  # all of the docstring was understood


@pytest.mark.parametrize("verb", ["", "train", "labels info"])  # the overview; long; one buffer
def test_help_may_be_read_in_part(verb: str) -> None:
    command = [sys.executable, "-m", "tokenlabel", *verb.split(), "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()  # as `head` does when it has enough
        assert process.stderr is not None
        said = process.stderr.read()
    assert (process.returncode, said) == (1, b"")


def test_another_broken_pipe_is_no_silent_end(monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(importlib.import_module("tokenlabel.cli.main"), "_call", broken)
    with pytest.raises(BrokenPipeError):
        main(["quickstart"])


@pytest.mark.parametrize("group", ["labels", "segment"])
def test_help_of_a_family_lists_its_verbs(group: str, capsys) -> None:
    main([group, "--help"])
    shown = capsys.readouterr().out
    for verb, (_, line) in VERBS.items():
        assert (f"  {verb} " in shown and line in shown) == verb.startswith(f"{group} ")


def test_a_misspelt_verb_is_named_with_its_neighbour(capsys) -> None:
    code, _, err = run("quickstrat", capsys=capsys)
    assert code == 2
    assert "no such verb: 'quickstrat' (did you mean 'quickstart'?)" in err


def test_a_misspelt_option_is_named_with_its_neighbour(capsys) -> None:
    code, out, err = run("quickstart", "--sedes", "2", capsys=capsys)
    assert code == 2
    assert "--seeds" in out + err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("thing.png: is empty; remove it"), 2, "thing.png: is empty; remove it"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 2, "the disk is full"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "gone"), 2, "gone: No such"),
        (KeyboardInterrupt(), 130, "interrupted: the same command goes on where it stopped"),
    ],
)
def test_errors_are_one_line_and_a_code(error, code, message, capsys, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("tokenlabel.cli.main"), "_call", broken)
    actual, _, err = run("quickstart", capsys=capsys)
    assert actual == code
    assert message in err
    assert len(err.splitlines()) == 1
