"""What a schedule looks at, and the probes that are watched for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from anarch_core.config.run_config import GRADIENT_NORM, RunConfig
from anarch_core.errors import ConfigError, UnknownComponentError
from anarch_core.plugin.blame import expected, on_behalf_of, origin
from anarch_core.plugin.options import parse_spec
from anarch_core.plugin.registry import Registry
from anarch_core.schedule import AbstractSchedule


def needed(schedule: AbstractSchedule) -> tuple[str, ...]:
    """The columns that a schedule looks at, each once.

    Raises:
        PluginError: it does not say so in texts.
    """
    who = origin(schedule)
    with on_behalf_of(who, "`needs`"):
        columns = expected(who, "`needs`", schedule.needs, tuple, list, set, frozenset)
    return tuple(dict.fromkeys(expected(who, "`needs` with", column, str) for column in columns))


def watched_probe(column: str, watched: Iterable[str]) -> str | None:
    """The probe that a column is measured by, as ``watched`` writes it, else the text before the first dot; None without a dot."""
    longest = max((spec for spec in watched if column.startswith(f"{spec}.")), key=len, default=None)
    return longest or (column.partition(".")[0] if "." in column else None)


def with_watched(config: RunConfig, options: Mapping[str, Any], registry: Registry) -> RunConfig:
    """The configuration with what its schedule looks at among what is watched.

    Args:
        config: of a run.
        options: of the schedule.
        registry: where components are looked up.

    Raises:
        AnarchError: the schedule cannot be built, or looks at a probe that no plugin provides.
    """
    schedule: AbstractSchedule = registry.create("schedule", parse_spec(config.switch)[0], dict(options))
    watch = list(config.watch)
    for column in needed(schedule):
        wanted = column if column == GRADIENT_NORM else watched_probe(column, watch)
        if wanted is None or wanted in watch:
            continue
        if wanted != GRADIENT_NORM:
            try:
                registry.find("probe", parse_spec(wanted)[0])
            except UnknownComponentError as error:
                msg = f"switch {config.switch!r} looks at {column!r}: {error}"
                raise ConfigError(msg) from None
        watch.append(wanted)
    return config if watch == list(config.watch) else attrs.evolve(config, watch=tuple(watch))
