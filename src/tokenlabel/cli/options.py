"""The options of a verb as tyro shows them: in groups, and without what tells a reader nothing.

A verb stays a plain function; its signature and the `Args:` of its docstring say everything. What tyro
prints of an option that may be left out, `{None}|STR` and `(default: None)`, is dropped.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_type_hints

import docstring_parser
import tyro
from pydantic import ValidationError
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from tokenlabel.errors import InputError

__all__ = ["call"]

# group -> its options, by their names in the function; the others are the verb's own
_GROUPS = {
    "data": (
        "data", "split", "val", "val_split", "holdout", "channels", "classes", "ignore_index", "layout",
    ),
    "model": (
        "model", "backbone", "head", "weights", "pretrained", "model_kwargs", "image_size",
        "in_chans",
    ),
    "labels": ("annotator", "labels", "online", "supervision", "mix"),
    "schedule": (
        "epochs", "updates", "max_steps", "patience", "batch_size", "scale", "opt", "lr",
        "weight_decay", "loss", "smoothing", "stop_epoch", "min_scale", "hflip",
    ),
    "machine": ("device", "dtype", "device_batch", "workers", "cache"),
}  # fmt: skip


def call(function: Callable[..., Any], *, prog: str, words: Sequence[str]) -> Any:
    """Call a verb's function with the options of a command line.

    Prints the help, or what does not fit, and exits, as tyro does. Raises InputError for a value that
    the dataclass of an option refuses.
    """
    docstring = docstring_parser.parse(function.__doc__ or "")
    helps = {param.arg_name: param.description for param in docstring.params}
    fields = _fields(function, helps)
    groups: dict[str, Any] = {}
    if fields.keys() & {"epochs", "updates"}:  # the verbs that train have many options
        groups = {name: type(name, (), {}) for name in _GROUPS if fields.keys() & {*_GROUPS[name]}}

    def called(**given: Any) -> Any:
        sections = [given.pop(group) for group in groups]  # some are named as an option in them
        return function(**given, **dict(ChainMap(*sections)))

    specs: dict[Any, StructConstructorSpec] = {
        kind: StructConstructorSpec(
            dict, tuple(fields.pop(name) for name in _GROUPS[group] if name in fields)
        )
        for group, kind in groups.items()
    }
    sections = tuple(_section(group, kind) for group, kind in groups.items())
    specs[function] = StructConstructorSpec(called, (*fields.values(), *sections))
    registry = ConstructorRegistry()
    registry.struct_rule(_Shown(specs))
    try:
        return tyro.cli(
            function, prog=prog, args=words, registry=registry, description=docstring.description
        )
    except _RefusedError as error:
        raise InputError(str(error)) from None


class _RefusedError(Exception):
    """No ValueError: tyro would draw a box around those of nested dataclasses, and pass on others."""


def _checked(kind: Callable[..., Any]) -> Callable[..., Any]:
    """A dataclass, as a function that names the option of a value which it refuses."""

    def made(*args: Any, **values: Any) -> Any:
        try:
            return kind(*args, **values)
        except ValidationError as error:
            fault = error.errors()[0]
            option = str(fault["loc"][0]).replace("_", "-")
            wish = fault["msg"].replace("Input should", "it must")
            raise _RefusedError(f"--{option} {fault['input']}: {wish}") from None

    return made


class _Shown:
    """tyro's rule for what has fields: those of `specs`, and dataclasses as it reads them itself."""

    def __init__(self, specs: Mapping[Any, StructConstructorSpec]) -> None:
        self.specs = specs
        self.asked = False  # whether tyro's own rule is being asked

    def __call__(self, info: StructTypeInfo) -> StructConstructorSpec | None:
        known = [spec for kind, spec in self.specs.items() if kind is info.type]
        if known:
            return known[0]
        if self.asked or not dataclasses.is_dataclass(info.type):
            return None
        self.asked = True
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            self.asked = False
        if not isinstance(spec, StructConstructorSpec):
            return None
        fields = tuple(map(_shown, spec.fields))
        return dataclasses.replace(spec, fields=fields, instantiate=_checked(spec.instantiate))


def _fields(
    function: Callable[..., Any], helps: Mapping[str, str | None]
) -> dict[str, StructFieldSpec]:
    """The function's parameters by name."""
    hints = get_type_hints(function, include_extras=True)
    fields = {}
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        default = tyro.MISSING_NONPROP if required else parameter.default
        fields[name] = _shown(StructFieldSpec(name, hints[name], default, helps.get(name)))
    return fields


def _section(name: str, kind: type[Any]) -> StructFieldSpec:
    flat: Any = Annotated[kind, tyro.conf.OmitArgPrefixes]
    return StructFieldSpec(name, flat, tyro.MISSING_NONPROP)


def _shown(field: StructFieldSpec) -> StructFieldSpec:
    """A field as it is shown: its help as running text, and no default where that is nothing."""
    text = field.helptext() if callable(field.helptext) else field.helptext
    marks: list[Any] = [tyro.conf.DisallowNone] if field.default is None else []
    if tyro.conf.UseAppendAction not in getattr(field.type, "__metadata__", ()):  # "(repeatable)"
        marks.append(tyro.conf.arg(help_behavior_hint=_default))
    kind: Any = field.type
    if marks:
        kind = Annotated[field.type, *marks]
    return dataclasses.replace(field, type=kind, helptext=text and " ".join(text.split()))


def _default(value: str) -> str:
    return "" if value in ("", "None") else f"(default: {value})"
