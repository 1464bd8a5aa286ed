# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses from TOML and back: types checked, misspellings found, documentation carried along."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import math
import re
import sys
import textwrap
import types
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vinpaint.errors import InputError

# In the standard library from Python 3.11 on, a package of its own before. By name, for the type checker.
_toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

T = TypeVar("T")

NONE = "none"
"""What stands for None, which TOML lacks."""


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        InputError: no such file, or no TOML in it.
    """
    try:
        values: dict[str, Any] = _toml.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"config: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"config: {path} is no TOML file: {error}") from error
    return values


def override(values: dict[str, Any], assignments: Iterable[str]) -> None:
    """Set values by path in place: ``stages.0.steps=100``; a value is TOML, or else a plain string.

    Raises:
        InputError: no ``=``, or a path that leads nowhere.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path.strip():
            raise InputError(f"--set: expected SECTION.KEY=VALUE, got {assignment!r}")
        try:
            value = _toml.loads(f"value = {text}")["value"]
        except ValueError:
            value = text.strip()
        *parents, last = path.strip().split(".")
        target: Any = values
        for part in parents:
            target = _child(target, part, path)
        if isinstance(target, list):
            raise InputError(f"--set: {path} names an entry of a list, expected one of its keys")
        target[last] = value


def _child(parent: Any, part: str, path: str) -> Any:
    if isinstance(parent, list):
        if not part.isdigit() or int(part) > len(parent):
            raise InputError(
                f"--set: {path}: expected a number from 0 to {len(parent)} instead of {part!r}"
            )
        if int(part) == len(parent):
            parent.append({})
        return parent[int(part)]
    child = parent.setdefault(part, [] if part == "stages" else {})
    if not isinstance(child, dict | list):
        raise InputError(f"--set: {path}: {part} is a value, it has no keys")
    return child


def build(cls: type[T], values: Any, where: str = "") -> T:
    """A dataclass from the values of its fields; ``where`` is its path in error messages.

    Raises:
        InputError: an unknown key, a wrong type, or what the class itself finds wrong.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where or 'config'}: expected a table of options, got {values!r}")
    hints = get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    converted = {}
    for name, value in values.items():
        path = f"{where}.{name}" if where else name
        if name not in names:
            raise InputError(
                f"{path}: no such option{_nearest(name, names)}; expected one of {', '.join(names)}"
            )
        converted[name] = convert(hints[name], value, path)
    try:
        return cls(**converted)
    except TypeError as error:
        raise InputError(f"{where or 'config'}: {error}") from error
    except ValueError as error:
        raise InputError(_located(str(error), where)) from error


def _located(message: str, where: str) -> str:
    """``message`` begins with an option, or with its section's name and the option: with its whole path."""
    section = where.rpartition(".")[2]
    if not where or message.startswith(where):
        return message
    if message.startswith((f"{section}.", f"{section}:")):
        return where.removesuffix(section) + message
    return f"{where}.{message}"


def convert(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the annotation of its field wants it.

    Raises:
        InputError: it does not fit.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if type(None) in arguments and (value is None or value == NONE):
            return None
        kinds = [kind for kind in arguments if kind is not type(None)]
        for kind in kinds[:-1]:
            try:
                return convert(kind, value, where)
            except InputError:
                continue
        return convert(kinds[-1], value, where)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            choices = [str(choice) for choice in arguments]
            near = _nearest(value, choices) if isinstance(value, str) else ""
            raise InputError(f"{where}: expected one of {', '.join(choices)}, got {value!r}{near}")
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else build(hint, value, where)
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: expected a table, got {value!r}")
        return {k: convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    return _convert_scalar(hint, value, where)


def _convert_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{where}: expected a list, got {value!r}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise InputError(f"{where}: expected {len(kinds)} values, got {len(value)}")
    pairs = zip(kinds, value, strict=True)
    return tuple(convert(kind, v, f"{where}.{i}") for i, (kind, v) in enumerate(pairs))


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and number and math.isfinite(value):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is int and number and isinstance(value, int):
        return value
    if hint not in (int, float) and isinstance(value, hint):
        return value
    words = {int: "a whole number", float: "a number", bool: "true or false"}
    raise InputError(f"{where}: expected {words.get(hint, 'a string')}, got {value!r}")


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def plain(value: Any) -> Any:
    """A configuration as dictionaries, lists and scalars."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def field_docs(cls: type) -> dict[str, str]:
    """What the docstring says of each field under ``Attributes:``."""
    _, _, text = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    block = textwrap.dedent(re.split(r"\n(?=\S)", text)[0])
    entries = re.split(r"^(\w+): ", block, flags=re.MULTILINE)[1:]
    docs = {}
    for name, marked_up in zip(entries[::2], entries[1::2], strict=True):
        plain = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"\1", marked_up).replace("``", "")
        words = " ".join(plain.split())
        docs[name] = words[0].upper() + words[1:]
    return docs


def to_toml(config: Any, *, documented: bool = False) -> str:
    """The TOML that :func:`build` makes the same configuration of; its sections are dataclasses.

    Args:
        config: a dataclass whose fields are dataclasses or tuples of them.
        documented: say above each option what it is and what its default is.
    """
    tables: list[str] = []
    for field in dataclasses.fields(config):
        section = getattr(config, field.name)
        many = isinstance(section, tuple)
        for one in section if many else (section,):
            heading = f"[[{field.name}]]" if many else f"[{field.name}]"
            _add_tables(tables, heading, one, documented)
    return "\n\n".join(tables) + "\n"


def _add_tables(tables: list[str], heading: str, section: Any, documented: bool) -> None:
    docs = field_docs(type(section)) if documented else {}
    lines, inner = [heading], []
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            inner.append((f"[{heading.strip('[]')}.{field.name}]", value))
            continue
        if documented:
            default = _default(field)
            text = docs.get(field.name, "")
            if default is not dataclasses.MISSING:
                text = f"{text} Default: {_toml_value(default)}".strip()
            lines += ["", *textwrap.wrap(text, 98, initial_indent="# ", subsequent_indent="# ")]
        lines.append(f"{field.name} = {_toml_value(value)}")
    tables.append("\n".join(lines))
    for name, value in inner:
        _add_tables(tables, name, value, documented)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _toml_value(value: Any) -> str:
    value = plain(value)
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    # JSON's booleans, numbers and escapes are TOML's, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
