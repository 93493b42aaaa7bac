"""Text from elsewhere: limits, no aliases, and errors that name the file and the line."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenlabel.errors import InputError
from tokenlabel.text import fenced, markdown, read_json, read_json_lines, read_text, read_yaml

BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (BOMB, "line 2.*aliases"),
        ("a: *b", "aliases"),
        ("[" * 3000, "nested deeper"),
        ("[" * 100 + "]" * 100, "nested deeper"),
        ("a: 1\na: 2", "'a' comes twice"),
        ("x: 1\ny: [1, 2\nz: 3", "line 3"),
        ("a: !!python/object/apply:os.system ['true']", "line 1"),
        ("a: 2020-13-45", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
        ("? {a: 1}\n: 2", "not valid YAML"),
        ("a: " + "1" * 5000, "not valid YAML"),
        ("x" * (1 << 21), "larger"),
    ],
)
def test_hostile_yaml_is_one_line(text: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault) as found:
        read_yaml(text, "recipe.yaml")
    assert "recipe.yaml" in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a": 1,\n "b": }', "line 2"),
        ("[" * 100_000, "nested deeper"),
        ("[" * 70 + "]" * 70, "nested deeper"),
        ("1" * 5000, "not valid JSON"),
        ("", "line 1"),
    ],
)
def test_hostile_json_is_one_line(text: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault) as found:
        read_json(text, "results.json")
    assert "results.json" in str(found.value)


def test_other_encodings_name_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(b"cat\ndog\n\xe9\xff\n")
    for read in (read_text, read_json, read_yaml):
        with pytest.raises(InputError, match=r"classes.txt, line 3: .*UTF-8"):
            read(file)
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(file) == {"a": 1}


def test_files_that_cannot_be_read_and_sizes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*missing"):
        read_json(tmp_path / "missing")
    with pytest.raises(InputError, match="cannot read"):
        read_yaml(tmp_path)
    (tmp_path / "big").write_bytes(b"x" * 11)
    with pytest.raises(InputError, match="larger than 10"):
        read_text(tmp_path / "big", limit=10)


def test_values_and_their_kind() -> None:
    assert read_yaml("{a: 1e-3, b: -1.5E+4, c: 1, d: [true, null, 'x']}") == {
        "a": 1e-3, "b": -1.5e4, "c": 1, "d": [True, None, "x"],
    }  # fmt: skip
    assert read_json('{"a": [1]}', kind=dict) == {"a": [1]}
    with pytest.raises(InputError, match="must hold a mapping, but holds a list"):
        read_json("[]", "x", kind=dict)
    with pytest.raises(InputError, match="must hold a list, but holds int"):
        read_yaml("3", "x", kind=list)


def test_lines_of_json(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"a": 1}\n\n{"a": 2}\n{"a": ')
    assert read_json_lines(file) == [{"a": 1}, {"a": 2}]
    file.write_text('{"a": 1}\n[]\n')
    with pytest.raises(InputError, match=r"metrics.jsonl, line 2 must hold a mapping"):
        read_json_lines(file)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="{}[]:,&*!?|>-'\"#%@` \n\tab01.~<\0\x85\ufeff", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (read_json, read_yaml):
        with suppress(InputError):
            read(text, "x")


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=hit()>", "a | b\n# heading", "![x](javascript:hit())", "`code` \\",
        "\u202egnp.evil", "\\" * 300, "plain_name-1",
    ],
)  # fmt: skip
def test_names_in_markdown_are_no_markup(text: str) -> None:
    shown = markdown(text)
    assert "\n" not in shown
    assert "<" not in shown
    assert not re.search(r"(?<!\\)(\\\\)*[`|\[\]*]", shown)
    assert not re.search(r"(?<!\\)(\\\\)*\\( \.\.\.)?$", shown)  # nothing after it is escaped
    assert markdown("plain_name-1 café") == "plain_name-1 café"


@pytest.mark.parametrize("text", ["a: 1\n", "```\n# out", "x\n  ````` \n", "~~~\n```"])
def test_no_text_closes_its_fence(text: str) -> None:
    first, *lines, last = fenced(text, "yaml").splitlines()
    assert first == f"{last}yaml"
    assert "\n".join(lines) == text.rstrip()
    assert not any(line.strip().startswith(last) for line in lines)
