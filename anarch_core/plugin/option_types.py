"""The types an option may have: how a value is checked, read from text, written as JSON and described to users."""

from __future__ import annotations

import enum
import math
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from anarch_core.bounds import normal_path, normal_text, ordinary_digits, shown

ALLOWED = "bool, int, float, str, Path, Literal, Enum, 'X | None' and 'tuple[X, ...]'"
NONE_TEXT = "none"

LARGEST = 2**63 - 1
"""The largest whole number of an option, and less its sign the smallest: what TOML and tensors have."""

LONGEST_LIST = 1000
"""Items of a list."""


class WrongValueError(ValueError):
    """A value that is not of the type.

    Attributes:
        why: what is wrong with it, where that is not plain.
    """

    def __init__(self, expected: str, value: object, why: str = "") -> None:
        super().__init__(f"must be {expected}: {why or shown(value)}")
        self.why = why


class OptionType(ABC):
    """One type of option. Values come from Python and TOML (:meth:`check`) or from a command line (:meth:`parse`)."""

    @property
    @abstractmethod
    def expected(self) -> str:
        """What a value must be, to complete "must be"."""

    @property
    @abstractmethod
    def metavar(self) -> str:
        """Placeholder for help texts."""

    @abstractmethod
    def check(self, value: Any) -> Any:
        """The value in the type of the field.

        Raises:
            ValueError: the value is of another type.
        """

    @abstractmethod
    def parse(self, text: str) -> Any:
        """The value that ``text`` stands for.

        Raises:
            ValueError: it stands for none.
        """

    def dump(self, value: Any) -> Any:
        """The value as JSON has it; :meth:`check` reads it back."""
        return value

    def wrong(self, value: Any, reason: ValueError | None = None) -> ValueError:
        """The error for a value of another type; ``reason`` is that for a part of it, where there is one."""
        return WrongValueError(self.expected, value, getattr(reason, "why", ""))


class BoolType(OptionType):
    """``bool``."""

    expected = "true or false"
    metavar = "true|false"

    def check(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        raise self.wrong(value)

    def parse(self, text: str) -> bool:
        if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        raise self.wrong(text)


class IntType(OptionType):
    """``int`` of 64 bits; a bool is none."""

    expected = "a whole number"
    metavar = "INTEGER"

    def check(self, value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST:
            return value
        raise self.wrong(value)

    def parse(self, text: str) -> int:
        try:
            if ordinary_digits(text):
                return self.check(int(text))
        except ValueError:
            pass
        raise self.wrong(text)


class FloatType(OptionType):
    """``float``, finite; an int is accepted, a bool is not."""

    expected = "a finite number"
    metavar = "FLOAT"

    def check(self, value: Any) -> float:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf:
            try:
                return float(value) + 0.0  # without the sign of a zero, which would make another experiment of it
            except OverflowError:
                pass  # an integer beyond all floats
        raise self.wrong(value)

    def parse(self, text: str) -> float:
        try:
            if ordinary_digits(text):
                return self.check(float(text))
        except ValueError:
            pass
        raise self.wrong(text)


class StrType(OptionType):
    """``str``."""

    expected = "a text"
    metavar = "TEXT"

    def check(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong(value)
        try:
            return normal_text(value)
        except ValueError as error:
            raise WrongValueError(self.expected, value, f"this one {error}") from None

    def parse(self, text: str) -> str:
        return self.check(text)


class PathType(OptionType):
    """``pathlib.Path``, written as text; whether it exists is the component's business."""

    expected = "a path"
    metavar = "PATH"

    def check(self, value: Any) -> Path:
        if not isinstance(value, (str, Path)):
            raise self.wrong(value)
        try:
            return normal_path(value)
        except ValueError as error:
            raise WrongValueError(self.expected, value, f"this one {error}") from None

    def parse(self, text: str) -> Path:
        return self.check(text)

    def dump(self, value: Path) -> str:
        return value.as_posix()


@attrs.frozen
class ChoiceType(OptionType):
    """``Literal`` or ``Enum``.

    Attributes:
        members: the values by their text; an enum's member is written as its value.
    """

    members: dict[str, Any]

    @property
    def expected(self) -> str:
        return "one of " + ", ".join(repr(_plain(member)) for member in self.members.values())

    @property
    def metavar(self) -> str:
        return "|".join(self.members)

    def check(self, value: Any) -> Any:
        for member in self.members.values():
            # 1 == True and 1 == 1.0: the type has to agree too.
            if any(type(value) is type(form) and value == form for form in (member, _plain(member))):
                return member
        raise self.wrong(value)

    def parse(self, text: str) -> Any:
        if text in self.members:
            return self.members[text]
        raise self.wrong(text)

    def dump(self, value: Any) -> Any:
        return _plain(value)


@attrs.frozen
class OptionalType(OptionType):
    """``X | None``; the text ``none`` stands for None, also in TOML, which has no null."""

    inner: OptionType

    @property
    def expected(self) -> str:
        return f"{self.inner.expected} or {NONE_TEXT!r}"

    @property
    def metavar(self) -> str:
        return f"{self.inner.metavar}|{NONE_TEXT}"

    def check(self, value: Any) -> Any:
        if value is None or (isinstance(value, str) and value == NONE_TEXT):
            return None
        try:
            return self.inner.check(value)
        except ValueError as error:
            raise self.wrong(value, error) from None

    def parse(self, text: str) -> Any:
        if text == NONE_TEXT:
            return None
        try:
            return self.inner.parse(text)
        except ValueError as error:
            raise self.wrong(text, error) from None

    def dump(self, value: Any) -> Any:
        return None if value is None else self.inner.dump(value)


@attrs.frozen
class TupleType(OptionType):
    """``tuple[X, ...]``; a list in TOML, separated by commas on the command line."""

    item: OptionType

    @property
    def expected(self) -> str:
        return f"a list, each item {self.item.expected}"

    @property
    def metavar(self) -> str:
        return f"{self.item.metavar},..."

    def check(self, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise self.wrong(value)
        return self._all(self.item.check, value, value)

    def parse(self, text: str) -> tuple[Any, ...]:
        return self._all(self.item.parse, [item.strip() for item in text.split(",")] if text.strip() else [], text)

    def _all(self, read: Callable[[Any], Any], items: Sequence[Any], given: Any) -> tuple[Any, ...]:
        if len(items) > LONGEST_LIST:
            raise WrongValueError(self.expected, given, f"this one has {len(items):,} items, and at most {LONGEST_LIST:,} are allowed")
        try:
            return tuple(map(read, items))
        except ValueError as error:
            raise self.wrong(given, error) from None

    def dump(self, value: tuple[Any, ...]) -> list[Any]:
        return [self.item.dump(item) for item in value]


_SCALARS: dict[Any, type[OptionType]] = {bool: BoolType, int: IntType, float: FloatType, str: StrType, Path: PathType}


def option_type(annotation: Any) -> OptionType:
    """The type of option for a resolved annotation.

    Raises:
        TypeError: the annotation is not one of those that options may have.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        rest = [argument for argument in arguments if argument is not type(None)]
        if len(rest) == 1 and len(arguments) == 2:
            return OptionalType(option_type(rest[0]))
    elif origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis and get_origin(arguments[0]) in (None, Literal):
            return TupleType(option_type(arguments[0]))
    elif origin is Literal:
        if all(type(argument) in (str, int) for argument in arguments):
            return ChoiceType({str(argument): argument for argument in arguments})
    elif annotation in _SCALARS:
        return _SCALARS[annotation]()
    elif isinstance(annotation, type) and issubclass(annotation, enum.Enum) and _writable(annotation):
        return ChoiceType({str(member.value): member for member in annotation})
    msg = f"has type {annotation!r}; options may be {ALLOWED}"
    raise TypeError(msg)


def _writable(members: type[enum.Enum]) -> bool:
    return all(type(member.value) in (str, int) for member in members)


def _plain(member: Any) -> Any:
    return member.value if isinstance(member, enum.Enum) else member
