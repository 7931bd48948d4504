"""What values the settings of a run take, written as on the command line or as Python values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

from anarch_core.bounds import MANY, SEED, Between, normal_path, normal_text, shown
from anarch_core.cards import device_choice
from anarch_core.config.early_stopping import EarlyStopping
from anarch_core.config.learning_rate import read
from anarch_core.config.weight_average import WeightAverage
from anarch_core.errors import ConfigError
from anarch_core.schedule import Moment

Control = Literal["continued", "scratch"]
Precision = Literal["float32", "float64", "tf32", "bfloat16"]
OptimizerState = Literal["reset", "carry"]
DataPlace = Literal["auto", "device", "host"]
Capture = Literal["auto", "on", "off"]

EPOCHS = Between(1, 10**6)
PROCESSES = Between(1, 1024)
LEARNING_RATE = Between(0, 10**6, above=True)
NORM = Between(0, 10**9, above=True)

MOST_NAMES = 1000
"""Entries of a list of names."""

MOST_SEEDS = 10_000
"""Seeds of a run; each trains a tree of its own."""


def text(value: object) -> str:
    """Text that is not empty, and that files and terminals can hold."""
    if not isinstance(value, str) or not value.strip():
        msg = f"expected a text, got {shown(value)}"
        raise ConfigError(msg)
    try:
        return normal_text(value.strip())
    except ValueError as error:
        msg = f"this text {error}"
        raise ConfigError(msg) from None


def text_or_none(value: object) -> str | None:
    """Text, or None."""
    return None if value is None else text(value)


def folder_or_none(value: object) -> Path | None:
    """A path, or None."""
    if value is None:
        return None
    try:
        return normal_path(value if isinstance(value, Path) else text(value))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        msg = f"this path {error}"
        raise ConfigError(msg) from None


def _whole(range: Between, value: object, *, otherwise: str = "") -> int:
    """A whole number of a range; ``otherwise`` is what else a message should offer."""
    if isinstance(value, bool) or not isinstance(value, int) or value not in range:
        msg = f"expected a whole number {range}{otherwise}, got {shown(value)}"
        raise ConfigError(msg)
    return value


def count(value: object) -> int:
    """A whole number of at least 1, of samples."""
    return _whole(MANY, value)


def count_or_none(value: object) -> int | None:
    """A whole number of at least 1, of samples, or None."""
    return None if value is None else count(value)


def epochs(value: object) -> int:
    """A whole number of at least 1, of epochs."""
    return _whole(EPOCHS, value)


def processes(value: object) -> int | None:
    """A whole number of at least 1, of processes or threads; None for ``"auto"``."""
    if value is None or (isinstance(value, str) and value == "auto"):
        return None
    return _whole(PROCESSES, value, otherwise=", or auto")


def shards(value: object) -> int:
    """A whole number of at least 1, of processes."""
    return _whole(PROCESSES, value)


def learning_rate(value: object) -> float:
    """A number above 0."""
    return _number(LEARNING_RATE, value)


def norm_or_none(value: object) -> float | None:
    """A number above 0, or None."""
    return None if value is None else _number(NORM, value)


def _number(range: Between, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value not in range:
        msg = f"expected a number {range}, got {shown(value)}"
        raise ConfigError(msg)
    return float(value)


def _one_of(allowed: Sequence[str], value: object) -> None:
    if not isinstance(value, str) or value not in allowed:
        msg = f"expected one of {', '.join(allowed)}, got {shown(value)}"
        raise ConfigError(msg)


def precision(value: Any) -> Precision:
    """A name of :data:`Precision`."""
    _one_of(get_args(Precision), value)
    return cast("Precision", value)


def optimizer_state(value: Any) -> OptimizerState:
    """A name of :data:`OptimizerState`."""
    _one_of(get_args(OptimizerState), value)
    return cast("OptimizerState", value)


def capture(value: Any) -> Capture:
    """A name of :data:`Capture`."""
    _one_of(get_args(Capture), value)
    return cast("Capture", value)


def data_place(value: Any) -> DataPlace:
    """A name of :data:`DataPlace`."""
    _one_of(get_args(DataPlace), value)
    return cast("DataPlace", value)


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def names(value: object) -> tuple[str, ...]:
    """A list, or text with commas, or a list of such texts; each name once."""
    found = []
    for item in _list(value):
        parts = item.split(",") if isinstance(item, str) and item.strip() else [text(item)]
        if not all(part.strip() for part in parts):
            msg = f"empty entry in {shown(value)}"
            raise ConfigError(msg)
        found += parts
    _bounded(found, MOST_NAMES, "names")
    return tuple(dict.fromkeys(map(text, found)))


def moments(value: object) -> tuple[str, ...]:
    """Moments as they are written, ``"5ep"``, each once: ``"5"`` and ``5`` are epochs."""
    given = [str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in _list(value)]
    found = names(given)
    for item in found:
        if Moment.parse(item, 1).iteration < 1:
            msg = f"expected moments after the start of a segment, got {shown(item)}; at its start and its end probes measure anyway"
            raise ConfigError(msg)
    return tuple(dict.fromkeys(item if item.endswith(("ep", "it")) else f"{item}ep" for item in found))


def _bounded(found: Sequence[object], most: int, what: str) -> None:
    if len(found) > most:
        msg = f"expected at most {most:,} {what}, got {len(found):,}"
        raise ConfigError(msg)


def controls(value: object) -> tuple[Control, ...]:
    """Some of :data:`Control`, in their order; none for ``"none"``."""
    chosen = names(value)
    if chosen == ("none",):
        return ()
    for name in chosen:
        if name not in get_args(Control):
            msg = f"expected 'none' or some of {', '.join(get_args(Control))}, got {shown(name)}"
            raise ConfigError(msg)
    return tuple(name for name in get_args(Control) if name in chosen)


def seeds(value: object) -> tuple[int, ...]:
    """``[0, 1, 2]``, ``"0,1,2"``, ``"0-4"`` or a mixture."""
    spans = [span for item in _list(value) for span in _spans(item, value)]
    total = sum(last - first + 1 for first, last in spans)
    if total > MOST_SEEDS:
        msg = f"expected at most {MOST_SEEDS:,} seeds, got {shown(total)}; each trains a tree of its own"
        raise ConfigError(msg)
    return tuple(dict.fromkeys(seed for first, last in spans for seed in range(first, last + 1)))


def _spans(item: object, value: object) -> Iterator[tuple[int, int]]:
    """First and last of the seeds that an item of a list stands for."""
    if isinstance(item, int) and not isinstance(item, bool):
        yield _whole(SEED, item), item
        return
    for part in item.split(",") if isinstance(item, str) else [""]:
        # Nineteen digits hold every seed; Python would not read some thousands of them.
        match = re.fullmatch(r"\s*([0-9]{1,19})\s*(?:-\s*([0-9]{1,19})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if last < first or last not in SEED:
            msg = f"expected seeds such as 0,1,2 or 0-4, each {SEED}, got {shown(value)}"
            raise ConfigError(msg)
        yield first, last


def paths(value: object) -> tuple[str, ...]:
    """A list of staged paths, or one of them."""
    found = [text(item).replace(" ", "") for item in _list(value)]
    _bounded(found, MOST_NAMES, "staged paths")
    return tuple(found)


def learning_rate_schedule(value: object) -> str:
    """What :meth:`~anarch_core.config.learning_rate.LearningRate.parse` can read, whatever it starts from and however long it lasts."""
    written = text(value).replace(" ", "")
    read(written)
    return written


def weight_average(value: object) -> str | None:
    """What :class:`~anarch_core.config.weight_average.WeightAverage` can read, spelt out, or None."""
    return None if value is None else str(WeightAverage.parse(text(value)))


def early_stopping(value: object) -> str | None:
    """What :class:`~anarch_core.config.early_stopping.EarlyStopping` can read, spelt out, or a number of epochs, or None."""
    if value is None:
        return None
    written = str(_whole(EPOCHS, value)) if isinstance(value, int) and not isinstance(value, bool) else text(value)
    return str(EarlyStopping.parse(written))


def device(value: object) -> str:
    """Devices of PyTorch, as :func:`anarch_core.cards.device_choice` takes them, or a list of cards."""
    return device_choice(",".join(map(text, _list(value))))


def validation(value: object) -> float:
    """A fraction below 1, or a whole number of samples above 1."""
    if not isinstance(value, bool) and isinstance(value, (int, float)):
        if 0 <= value < 1:
            return float(value) + 0.0  # without the sign of a zero
        if 1 < value <= MANY.most and value == int(value):
            return int(value)
    msg = f"expected a fraction from 0 to below 1, or a whole number of samples from 2 to {MANY.most:,}, got {shown(value)}"
    raise ConfigError(msg)


def options(value: Any) -> Mapping[str, Mapping[str, Any]]:
    """Options by component; plain dictionaries, because worker processes receive them pickled."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and isinstance(table, Mapping) for name, table in value.items()):
        msg = f"expected a mapping from components to their options, as {{'NAME': {{'momentum': 0.9}}}}, got {shown(value)}"
        raise ConfigError(msg)
    return {name: dict(table) for name, table in value.items() if table}
