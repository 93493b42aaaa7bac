"""Runs in processes of their own: each record is made once, what they print is kept, deaths are told."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tokenlabel.compare import Record
from tokenlabel.compare.plan import Job, make_records
from tokenlabel.errors import InputError


@dataclass(frozen=True)
class Work:
    arm: str
    ends: str = "well"

    def __call__(self) -> Record:
        print(f"at work on {self.arm}", flush=True)
        if self.ends == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.ends == "refused":
            raise InputError(f"{self.arm} cannot be")
        return Record(self.arm, 0, float(len(self.arm)), details={"process": os.getpid()})


def jobs(folder: Path, **ends: str) -> list[Job]:
    return [Job(arm, 0, folder / f"{arm}.json", Work(arm, end)) for arm, end in ends.items()]


@pytest.fixture(autouse=True)
def _found_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


@pytest.mark.slow
def test_processes_leave_records_and_logs(tmp_path: Path) -> None:
    made: list[str] = []
    wanted = jobs(tmp_path, a="well", bb="well", ccc="well")
    found = make_records(wanted, 2, lambda record: made.append(record.arm))
    assert [record.score for record in found] == [1.0, 2.0, 3.0]
    assert sorted(made) == ["a", "bb", "ccc"]
    assert os.getpid() not in {record.details["process"] for record in found}
    assert wanted[1].log.read_text() == "at work on bb\n"
    assert make_records(wanted, 2) == found


@pytest.mark.slow
def test_what_goes_wrong_in_a_process_is_said_here(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bb cannot be"):
        make_records(jobs(tmp_path, a="well", bb="refused"), 2)
    assert not (tmp_path / "bb.json").exists()
    with pytest.raises(InputError, match="was killed"):
        make_records(jobs(tmp_path, c="killed", d="killed"), 2)
    found = make_records(jobs(tmp_path, a="well", bb="well"), 2)
    assert [record.score for record in found] == [1.0, 2.0]
