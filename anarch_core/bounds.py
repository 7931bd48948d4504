"""What numbers, texts and paths from outside may be, and how a message shows one that is not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import attrs

__all__ = ["MANY", "SEED", "Between", "between", "normal_path", "normal_text", "ordinary_digits", "shown"]

LONGEST = 4096
"""Characters of a text or a path; what is longer no file system takes."""

_SHOWN = 60
"""Characters of a value in a message."""


@attrs.frozen
class Between:
    """The numbers from one to another; as a validator of attrs, it refuses the others.

    Attributes:
        least: the smallest number allowed, or with ``above`` the one that all must exceed.
        most: the largest number allowed, or with ``below`` the one that none may reach.
        above: whether ``least`` itself is excluded.
        below: whether ``most`` itself is excluded.
    """

    least: float
    most: float
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether the number is one of these; nan never is."""
        return (self.least < value if self.above else self.least <= value) and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        """To follow "a number", as in ``from 1 to 10,000`` and ``above 0 and below 1``."""
        if self.above:
            return f"above {_written(self.least)} and {'below' if self.below else 'up to'} {_written(self.most)}"
        return f"from {_written(self.least)} to {'below ' if self.below else ''}{_written(self.most)}"

    def __call__(self, instance: object, attribute: Any, value: Any) -> None:
        """Validate a field that holds a number, None, or several numbers.

        Raises:
            ValueError: a number is not one of these.
        """
        for number in value if isinstance(value, tuple) else () if value is None else (value,):
            if number not in self:
                msg = f"{attribute.name!r} must be {self}: {shown(value)}"
                raise ValueError(msg)


def between(least: float, most: float, *, above: bool = False, below: bool = False) -> Between:
    """The range of an option, for its validator: ``attrs.field(default=3, validator=between(1, 100), metadata=opt("How many."))``.

    Help shows it, and the message for a value outside says it. It holds for every number of a tuple; None is always allowed.

    Args:
        least: the smallest number allowed.
        most: the largest number allowed.
        above: exclude ``least`` itself.
        below: exclude ``most`` itself.
    """
    return Between(least, most, above, below)


MANY = Between(1, 10**9)
"""How many samples or steps somebody may ask for: more than any data set has that is held in memory."""

SEED = Between(0, 2**63 - 1)
"""Seeds that every generator of random numbers takes."""


def shown(value: object) -> str:
    """A value as a message shows it: one line, printable, of some 60 characters at most."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**_SHOWN:
        # Python refuses to write out integers of more than 4,300 digits.
        return f"an integer of {int(value.bit_length() * math.log10(2)) + 1} digits"
    if isinstance(value, (list, tuple)):
        opening, closing = "[]" if isinstance(value, list) else "()"
        items = ["[…]" if isinstance(item, (list, tuple)) else shown(item) for item in value[:10]]
        return _shortened(opening + ", ".join([*items, *(["…"] if len(value) > 10 else [])]) + closing)
    if isinstance(value, str):
        return _shortened(repr(value if len(value) < 2 * _SHOWN else value[:_SHOWN] + value[-_SHOWN:]))
    try:
        return _shortened(" ".join(repr(value).split()))
    except Exception:
        return f"a {type(value).__name__}"


def ordinary_digits(text: str) -> bool:
    """Whether a text has no other digits than 0 to 9, and so few of them that Python reads them as a number."""
    return text.isascii() and len(text) <= 400


def normal_text(text: str) -> str:
    """A text that files and terminals can hold.

    Raises:
        ValueError: it is too long, holds the character NUL, or is not UTF-8.
    """
    if len(text) > LONGEST:
        msg = f"has {len(text):,} characters, expected at most {LONGEST:,}"
        raise ValueError(msg)
    if "\0" in text:
        msg = f"holds the character NUL: {shown(text)}"
        raise ValueError(msg)
    if any("\ud800" <= character <= "\udfff" for character in text):
        msg = f"is not UTF-8: {shown(text)}"
        raise ValueError(msg)
    return text


def normal_path(path: str | Path) -> Path:
    """A path that files can be asked for, its ``~`` as written.

    Raises:
        ValueError: it is no :func:`normal_text`, has a name of more than 255 bytes, or starts with ``~user`` for nobody here.
    """
    found = Path(normal_text(str(path)))
    if any(len(part.encode()) > 255 for part in found.parts):
        msg = f"has a name of more than 255 bytes: {shown(str(path))}"
        raise ValueError(msg)
    try:
        found.expanduser()
    except RuntimeError:
        msg = f"starts with the home of a user who is not known here: {shown(str(path))}"
        raise ValueError(msg) from None
    return found


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 20]}…{text[-19:]}"


def _written(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"
