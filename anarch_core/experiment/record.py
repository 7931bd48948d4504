"""Classes that are JSON tables on disk: what is read is checked against the types of their fields."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import attrs

from anarch_core.errors import RunError
from anarch_core.files.tables import in_short

_WORDS: dict[Any, str] = {
    float: "a finite number",
    int: "a whole number",
    str: "a text",
    bool: "true or false",
    dict: "a table",
    list: "a list",
}


@attrs.frozen
class Record:
    """Reads and writes a class as a JSON table: its fields are the keys, in their order, and may be records themselves.

    Attributes:
        later: fields that earlier versions did not write.
    """

    later: ClassVar[Sequence[str]] = ()

    @classmethod
    def from_json(cls, table: Any, where: Path) -> Self:
        """The record that a JSON table holds. Keys that this version does not know are left out.

        Raises:
            RunError: it is no table, keys are missing, or a value is of another type; the message names them and the file.
        """
        try:
            found: Self = _record(cls, table, "")
        except _MismatchError as error:
            msg = f"{where} is not what anarch wrote: {error}; use an intact copy, or resume the run, which makes it again"
            raise RunError(msg) from None
        return found

    def to_json(self) -> dict[str, Any]:
        """The table; :meth:`from_json` is its inverse."""
        return attrs.asdict(self)


class _MismatchError(Exception):
    """A value is not of the type of its field."""

    def __init__(self, expected: str, value: Any, name: str) -> None:
        place = f" as {name.removeprefix('.')!r:.80}" if name else ""
        super().__init__(f"expected {expected}{place}, got {in_short(value)}")


def _record(cls: type[Record], table: Any, name: str) -> Any:
    names = [field.name for field in attrs.fields(cls)]
    missing = names if not isinstance(table, dict) else [key for key in names if key not in table and key not in cls.later]
    if missing:
        raise _MismatchError("a table with " + ", ".join(map(repr, missing)), table, name)
    hints = typing.get_type_hints(cls)
    return cls(**{key: _value(hints[key], table[key], f"{name}.{key}") for key in names if key in table})


def _value(hint: Any, value: Any, name: str) -> Any:
    """The value as the type asks for it."""
    if hint is Any:
        return value
    if isinstance(hint, types.UnionType):
        others = [one for one in typing.get_args(hint) if one is not types.NoneType]
        return None if value is None else _value(others[0], value, name)  # unions are of one type and None
    outer, inner = typing.get_origin(hint), typing.get_args(hint)
    if outer in (Mapping, dict):
        _require(dict, value, name)
        return {key: _value(inner[1], one, f"{name}.{key}") for key, one in value.items()}
    if outer in (Sequence, list):
        _require(list, value, name)
        return [_value(inner[0], one, f"{name}[{index}]") for index, one in enumerate(value)]
    if issubclass(hint, dict):
        missing = [key for key in hint.required if not isinstance(value, dict) or key not in value]
        if missing:
            raise _MismatchError("a table with " + ", ".join(map(repr, missing)), value, name)
        return hint(_value(Mapping[str, float | None], value, name))
    if issubclass(hint, Record):
        return _record(hint, value, name)
    _require(hint, value, name)
    return value


def _require(kind: type, value: Any, name: str) -> None:
    fits = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise _MismatchError(_WORDS[kind], value, name)
