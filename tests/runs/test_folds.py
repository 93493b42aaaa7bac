"""The record of folds finds every key that was taught on, and no damage goes unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenlabel.errors import InputError
from tokenlabel.runs.folds import holds_folds, open_folds, write_folds


def test_folds_are_found_by_key(tmp_path: Path) -> None:
    keys = [f"ant/{number}.jpg" for number in range(500)]
    write_folds(tmp_path, keys, [number % 3 for number in range(500)], 3, None)
    found = open_folds(tmp_path)
    assert holds_folds(tmp_path)
    assert [found.fold_of(key) for key in keys] == [number % 3 for number in range(500)]
    assert found.fold_of("bee/1.jpg") is None
    assert [path.name for path in found.members] == ["fold-0", "fold-1", "fold-2"]


@pytest.mark.parametrize("name", ["folds.json", "folds.bin"])
def test_damage_is_refused(tmp_path: Path, name: str) -> None:
    write_folds(tmp_path, ["a", "b", "c"], [0, 1, 0], 2, None)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(
        content.replace(b"2", b"3") if name == "folds.json" else content[1:]
    )
    with pytest.raises(InputError, match="damaged"):
        open_folds(tmp_path)


def test_unfinished_folds_are_told(tmp_path: Path) -> None:
    assert not holds_folds(tmp_path)
    (tmp_path / "fold-0").mkdir()
    with pytest.raises(InputError, match="unfinished"):
        open_folds(tmp_path)
