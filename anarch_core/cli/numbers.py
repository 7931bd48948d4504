"""Numbers on the command line that belong to a command and to no component."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from anarch_core.bounds import Between
from anarch_core.plugin.option_types import FloatType, IntType

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Number(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Reads a number of a range; help and messages say which.

    Args:
        range: what it may be.
        whole: whether it must be a whole number.
    """

    def __init__(self, range: Between, *, whole: bool = True) -> None:
        self.range = range
        self.field_type = IntType() if whole else FloatType()
        self.name = self.field_type.metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        try:
            number = self.field_type.parse(value) if isinstance(value, str) else self.field_type.check(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if number not in self.range:
            self.fail(f"must be {self.range}: {number}", param, ctx)
        return number


def number_option(flag: str, *, default: float | None, range: Between, whole: bool = True, help: str) -> Decorator:
    """A flag that takes a number, with its default and range in the help."""
    notes = ([] if default is None else [f"default: {default}"]) + [str(range)]
    return click.option(flag, type=Number(range, whole=whole), default=default, help=f"{help}  [{'; '.join(notes)}]")
