"""Files are whole or not there; a disk that fails is one line; names stay in their folder."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tokenlabel.errors import InputError
from tokenlabel.files import (
    Locked,
    claim_file,
    claim_folder,
    inside,
    locked,
    replacing,
    replacing_folder,
    short_of_space,
    write_atomically,
    write_tensors,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Every file of this process may grow to `size` bytes: also those that C++ and Rust write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_atomically(file, "old")
    with pytest.raises(ValueError), replacing(file) as aside:
        int("x" * aside.write_text("new"))
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_files_of_every_library_get_the_umasks_permissions(tmp_path: Path) -> None:
    plain, weights = tmp_path / "plain", tmp_path / "weights.safetensors"
    plain.write_text("as the umask has it")
    with replacing(weights) as aside:
        save_file({"w": torch.zeros(2)}, aside)
        aside.chmod(0o600)
    with replacing_folder(tmp_path / "folder") as draft:
        save_file({"w": torch.zeros(2)}, draft / "w.safetensors")
        (draft / "w.safetensors").chmod(0o600)
    modes = {p.stat().st_mode & 0o777 for p in (plain, weights, tmp_path / "folder/w.safetensors")}
    assert modes == {plain.stat().st_mode & 0o777}


def _text(path: Path) -> None:
    path.write_bytes(b"x" * 3_000_000)


def _safetensors(path: Path) -> None:
    write_tensors(path, {"w": torch.zeros(700_000)})


def _torch(path: Path) -> None:
    torch.save({"w": torch.zeros(700_000)}, path)


@pytest.mark.parametrize("write", [_text, _safetensors, _torch])
def test_a_full_disk_is_one_line_whatever_the_library_raises(tmp_path: Path, write) -> None:
    with (
        file_size_limit(1 << 20),
        pytest.raises(InputError, match=r"no space left for .*file"),
        replacing(tmp_path / "file") as aside,
    ):
        write(aside)
    assert names(tmp_path) == []
    with replacing(tmp_path / "file") as aside:  # space is back: the same write succeeds
        write(aside)
    assert (tmp_path / "file").stat().st_size >= 2_800_000


def test_a_full_disk_is_one_line_where_the_library_cleans_up_before_it_raises(
    tmp_path: Path,
) -> None:
    """There is space again by then; safetensors, written in Rust, says so in the text alone."""
    with (
        pytest.raises(InputError, match=r"no space left for .*weights"),
        replacing(tmp_path / "weights"),
    ):
        raise RuntimeError("while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(RuntimeError, match="os error 2"), replacing(tmp_path / "weights"):
        raise RuntimeError("while reading another file: No such file (os error 2)")


def test_an_error_that_is_not_the_disks_passes_through(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), replacing(tmp_path / "a"):
        raise RuntimeError("shapes differ")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        (tmp_path / "missing").read_text()


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        write_atomically(tmp_path / "no" / "a", "x")


def test_leftovers_of_a_killed_process_go_with_the_next_write(tmp_path: Path) -> None:
    code = (
        "import os,sys;from pathlib import Path;from tokenlabel.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as aside:\n"
        "    aside.write_text('half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a"], check=False)
    assert len(names(tmp_path)) == 1
    write_atomically(tmp_path / "b", "whole")
    assert names(tmp_path) == ["b"]


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "../a", "a/../../b", "/etc/passwd", "a\0b", "..\\a", "C:a", "C:\\a", "\\a",
     "a/..", "//host/share"],
)  # fmt: skip
def test_names_that_leave_their_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="not a name of a file inside"):
        inside(tmp_path, name)


def test_ordinary_names_stay(tmp_path: Path) -> None:
    for name in (
        "a",
        "a/b.jpg",
        "..a",
        "a..",
        "猫/猫.jpg",
        "a b",
        "a\\b",
        ".hidden",
        "-x",
        "a/./b",
    ):
        assert inside(tmp_path, name) == tmp_path / name


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "blob").write_text("x")
    (folder / "link").symlink_to(tmp_path / "out")
    (folder / "blob").symlink_to(tmp_path / "blob")
    for name, links in (("link/a", False), ("link/a", True), ("blob", False)):
        with pytest.raises(InputError):
            inside(folder, name, links=links)
    assert inside(folder, "blob", links=True).read_text() == "x"


@given(st.text(alphabet="./\\a:\0 ~", max_size=12))
def test_no_name_leads_out(name: str) -> None:
    folder = Path("/some/folder")
    try:
        path = inside(folder, name)
    except InputError:
        return
    assert os.path.normpath(path).startswith("/some/folder/")


def test_foreign_folders_and_files_are_refused(tmp_path: Path) -> None:
    assert claim_folder(tmp_path / "new" / "deep").is_dir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"choose another folder, or say --overwrite$"):
        claim_folder(tmp_path / "mine", overwrite=False)
    with pytest.raises(InputError, match=r"choose another folder$"):
        claim_folder(tmp_path / "mine")  # of a verb that has no such option
    claim_folder(tmp_path / "mine", overwrite=True)
    claim_folder(tmp_path / "mine", ours=lambda p: (p / "manifest.json").exists())
    file = tmp_path / "mine" / "manifest.json"
    with pytest.raises(InputError, match="is a file"):
        claim_folder(file, overwrite=True)
    with pytest.raises(InputError, match="exists already"):
        claim_file(file)
    assert claim_file(file, overwrite=True) == file
    with pytest.raises(InputError, match="is a folder"):
        claim_file(tmp_path / "mine", overwrite=True)


_HOLD = """
import os, sys, time
from pathlib import Path
from tokenlabel.files import locked
with locked(Path(sys.argv[1]), "the run"):
    if sys.argv[2] == "child" and os.fork() == 0:
        time.sleep(2)  # as a loader's worker that has not yet noticed
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def _holder(path: Path, mode: str = "alone") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, path, mode], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_holder_learns_who_the_first_is(tmp_path: Path) -> None:
    first = _holder(tmp_path)
    try:
        with pytest.raises(Locked, match=f"the run .* process {first.pid} on .* since 2"):
            locked(tmp_path, "the run").__enter__()
    finally:
        first.kill()
        first.wait()
    with locked(tmp_path, "the run"):
        assert (tmp_path / ".lock").exists()
        with pytest.raises(Locked):  # also within one process
            locked(tmp_path, "the run").__enter__()
    assert names(tmp_path) == []


def test_a_killed_holders_lock_is_taken_over_though_its_children_live(tmp_path: Path) -> None:
    first = _holder(tmp_path, "child")
    first.kill()
    first.wait()
    begin = time.monotonic()
    with locked(tmp_path, "the run"):
        assert time.monotonic() - begin < 10


def test_files_are_locked_beside_themselves(tmp_path: Path) -> None:
    with locked(tmp_path / "a.part", "the shard"):
        assert names(tmp_path) == ["a.part.lock"]
    assert names(tmp_path) == []


def test_space_that_will_not_do_is_said(tmp_path: Path) -> None:
    assert short_of_space(tmp_path / "new" / "run", 10) is None
    assert "no space for" in (short_of_space(tmp_path / "new", 1 << 60) or "")
