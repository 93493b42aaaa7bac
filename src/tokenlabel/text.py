"""Text that others wrote: readers of JSON, YAML and lists, all with limits; Markdown to show it in.

Nothing here runs code, follows aliases or recurses further than `DEPTH`.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tokenlabel.errors import InputError

__all__ = [
    "DEPTH",
    "argument_values",
    "fenced",
    "first_of",
    "markdown",
    "read_json",
    "read_json_lines",
    "read_text",
    "read_yaml",
]

DEPTH = 64
_JSON_LIMIT = 1 << 30  # bytes: instance annotations of large data sets are half of it
_MARKDOWN_LIMIT = 200  # characters
_YAML_LIMIT = 1 << 20  # recipes and class lists; PyYAML reads some 100 kB a second


def read_text(source: Path | bytes | str, where: str = "", *, limit: int = _JSON_LIMIT) -> str:
    """The text of a UTF-8 file (or of bytes), with or without a byte order mark; a str is itself.

    Raises InputError where it cannot be read, is larger than `limit` bytes or is no UTF-8.
    """
    if isinstance(source, str):
        return source
    where = where or (str(source) if isinstance(source, Path) else "text")
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                content = file.read(limit + 1)
        else:
            content = source
    except OSError as error:
        raise InputError(f"cannot read {where}: {error.strerror}") from None
    if len(content) > limit:
        raise InputError(f"{where} is larger than {limit} bytes: it is refused")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{where}, line {line}: this is no UTF-8 text") from None


def read_json(
    source: Path | bytes | str,
    where: str = "",
    *,
    kind: type[Any] | None = None,
) -> Any:
    """The value of a JSON file, or of bytes or text; `kind`: the type it must have.

    Raises InputError that names `where` (by default the file) and the line.
    """
    where = where or (str(source) if isinstance(source, Path) else "JSON text")
    text = read_text(source, where)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}, line {error.lineno}: this is not valid JSON ({error.msg})"
        ) from None
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{where} is not valid JSON: {error}") from None
    except RecursionError:
        raise InputError(f"{where} is nested deeper than {DEPTH} levels: it is refused") from None
    _check_depth(value, where)
    return _of_kind(value, kind, where)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object a line; a last line that a crash cut short is left.

    Raises InputError that names the file and the line.
    """
    text = read_text(path)
    lines = text.split("\n")
    return [
        read_json(line, f"{path}, line {number}", kind=dict)
        for number, line in enumerate(lines[:-1], start=1)
        if line.strip()
    ]


def read_yaml(source: Path | bytes | str, where: str = "", *, kind: type[Any] | None = None) -> Any:
    """The value of a YAML file (a Path), or of bytes or text; `kind`: the type it must have.

    Numbers are those of YAML 1.2 (`1e-3` is one). Aliases, tags that build objects and keys that
    come twice are refused. Raises InputError that names `where` (by default the file) and the line.
    """
    where = where or (str(source) if isinstance(source, Path) else "YAML text")
    text = read_text(source, where, limit=_YAML_LIMIT)
    if len(text) > _YAML_LIMIT:
        raise InputError(f"{where} is larger than {_YAML_LIMIT} bytes: it is refused")
    try:
        value = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise InputError(f"{where}{line}: this is not valid YAML ({problem})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
    except (ValueError, OverflowError) as error:  # the 31st of February, ten thousand digits
        raise InputError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InputError(f"{where} is nested deeper than {DEPTH} levels: it is refused") from None
    return _of_kind(value, kind, where)


def markdown(value: object) -> str:
    """A value in one line of Markdown, or a cell of its tables, where nothing in it is markup."""
    text = html.escape(" ".join(str(value).split()))
    text = re.sub(r"([\\`*\[\]|])", r"\\\1", text)
    return text if len(text) <= _MARKDOWN_LIMIT else text[:_MARKDOWN_LIMIT].rstrip("\\") + " ..."


def fenced(text: str, language: str = "") -> str:
    """A block of code in Markdown, behind a fence that the text cannot close."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def argument_values(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that a command line gave, as Python has them: lists from their YAML, "[64,128]"."""
    return {
        name: read_yaml(value, name, kind=list)
        if isinstance(value, str) and value.startswith("[")
        else value
        for name, value in arguments.items()
    }


def _of_kind(value: Any, kind: type[Any] | None, where: str) -> Any:
    if kind is not None and not isinstance(value, kind):
        names: dict[type[Any], str] = {dict: "a mapping", list: "a list"}
        wanted = names.get(kind, kind.__name__)
        found = names.get(type(value), type(value).__name__)
        raise InputError(f"{where} must hold {wanted}, but holds {found}")
    return value


def _check_depth(value: Any, where: str) -> None:
    level, depth = [value], 0
    while level := [
        inner
        for outer in level
        if isinstance(outer, list | dict)
        for inner in (outer.values() if isinstance(outer, dict) else outer)
        if isinstance(inner, list | dict)
    ]:
        depth += 1
        if depth > DEPTH:
            raise InputError(f"{where} is nested deeper than {DEPTH} levels: it is refused")


class _Loader(yaml.SafeLoader):
    """Plain values with YAML 1.2 numbers: PyYAML alone reads `1e-3` as a word."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem="aliases are not read: write the value out", problem_mark=event.start_mark
            )
        self._depth += 1
        if self._depth > DEPTH:
            raise RecursionError
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            names = [key.value for key, _ in node.value]
            twice = next((n for n in names if names.count(n) > 1), names[0])
            mark: Any = node.start_mark
            raise yaml.MarkedYAMLError(problem=f"{twice!r} comes twice", problem_mark=mark)
        return mapping


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def first_of(names: Sequence[str], shown: int) -> str:
    """The first names of a list in a message: "a, b, c ..."."""
    return ", ".join(names[:shown]) + (" ..." if len(names) > shown else "")
