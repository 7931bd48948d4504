"""What values the settings of a run take, written as on the command line or as Python values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

from anarch_core.config.learning_rate import LearningRate
from anarch_core.errors import ConfigError

Control = Literal["continued", "scratch"]
Precision = Literal["float32", "float64", "tf32", "bfloat16"]
OptimizerState = Literal["reset", "carry"]


def text(value: object) -> str:
    """Text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        msg = f"expected a text, got {value!r}"
        raise ConfigError(msg)
    return value.strip()


def text_or_none(value: object) -> str | None:
    """Text, or None."""
    return None if value is None else text(value)


def folder_or_none(value: object) -> Path | None:
    """A path, or None."""
    return value if value is None or isinstance(value, Path) else Path(text(value))


def count(value: object) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"expected a whole number of at least 1, got {value!r}"
        raise ConfigError(msg)
    return value


def count_or_none(value: object) -> int | None:
    """A whole number of at least 1, or None."""
    return None if value is None else count(value)


def count_or_auto(value: object) -> int | None:
    """A whole number of at least 1; None for ``"auto"``."""
    return None if value is None or value == "auto" else count(value)


def positive(value: object) -> float:
    """A finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        msg = f"expected a number above 0, got {value!r}"
        raise ConfigError(msg)
    return float(value)


def _one_of(allowed: Sequence[str], value: object) -> None:
    if value not in allowed:
        msg = f"expected one of {', '.join(allowed)}, got {value!r}"
        raise ConfigError(msg)


def precision(value: Any) -> Precision:
    """A name of :data:`Precision`."""
    _one_of(get_args(Precision), value)
    return cast("Precision", value)


def optimizer_state(value: Any) -> OptimizerState:
    """A name of :data:`OptimizerState`."""
    _one_of(get_args(OptimizerState), value)
    return cast("OptimizerState", value)


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def names(value: object) -> tuple[str, ...]:
    """A list, or text with commas, or a list of such texts; each name once."""
    found = [name.strip() for item in _list(value) for name in text(item).split(",")]
    if "" in found:
        msg = f"empty entry in {value!r}"
        raise ConfigError(msg)
    return tuple(dict.fromkeys(found))


def controls(value: object) -> tuple[Control, ...]:
    """Some of :data:`Control`, in their order; none for ``"none"``."""
    chosen = names(value)
    if chosen == ("none",):
        return ()
    for name in chosen:
        if name not in get_args(Control):
            msg = f"expected 'none' or some of {', '.join(get_args(Control))}, got {name!r}"
            raise ConfigError(msg)
    return tuple(name for name in get_args(Control) if name in chosen)


def seeds(value: object) -> tuple[int, ...]:
    """``[0, 1, 2]``, ``"0,1,2"``, ``"0-4"`` or a mixture."""
    found: list[int] = []
    for item in _list(value):
        if isinstance(item, int) and not isinstance(item, bool) and item >= 0:
            found.append(item)
            continue
        for part in str(item).split(","):
            match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
            if isinstance(item, bool) or match is None or int(match[2] or match[1]) < int(match[1]):
                msg = f"expected seeds such as 0,1,2 or 0-4, got {value!r}"
                raise ConfigError(msg)
            found.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(dict.fromkeys(found))


def paths(value: object) -> tuple[str, ...]:
    """A list of staged paths, or one of them."""
    return tuple(text(item).replace(" ", "") for item in _list(value))


def learning_rate_schedule(value: object) -> str:
    """What :class:`~anarch_core.config.learning_rate.LearningRate` can read."""
    written = text(value).replace(" ", "")
    LearningRate.parse(written, base=1.0, epochs=1)
    return written


def device(value: object) -> str:
    """A device of PyTorch, or ``"auto"``."""
    written = text(value)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", written):
        msg = f"expected auto, cpu, cuda or cuda:N, got {value!r}"
        raise ConfigError(msg)
    return written


def validation(value: object) -> float:
    """A fraction below 1, or a whole number of samples above 1."""
    if not isinstance(value, bool) and isinstance(value, (int, float)):
        if 0 <= value < 1:
            return float(value)
        if value > 1 and value == int(value):
            return int(value)
    msg = f"expected a fraction from 0 to below 1, or a number of samples above 1, got {value!r}"
    raise ConfigError(msg)


def options(value: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """Options by component; plain dictionaries, because worker processes receive them pickled."""
    return {name: dict(table) for name, table in value.items() if table}
