"""Events as lines of text, for workers that are heard through files.

Nothing that is read becomes code: an event is a kind, and a value of plain numbers, texts, lists and tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anarch_core.errors import RunError
from anarch_core.experiment.events import Event
from anarch_core.experiment.segment_result import Notes


def event_to_line(event: Event) -> bytes:
    """A line of JSON, its end included. The segment is not in it: who reads it knows of whom he hears."""
    value = {**event.value, "notes": event.value["notes"].to_json()} if event.kind == "begun" else event.value
    return json.dumps([event.kind, value]).encode() + b"\n"


def event_from_line(line: bytes, segment: str) -> Event | None:
    """The event of a line; None for one that holds none, such as what a process leaves that is killed while it writes.

    Args:
        line: from :func:`event_to_line`.
        segment: identity that it tells of.
    """
    try:
        kind, value = json.loads(line)
        return Event(kind, segment, _READ.get(kind, _plain)(value)) if isinstance(kind, str) else None
    except (ValueError, TypeError, KeyError, RecursionError, RunError):
        return None


def _plain(value: Any) -> Any:
    return value


def _begun(value: Any) -> dict[str, Any]:
    return {
        "iteration": int(value["iteration"]),
        "rows": tuple(dict(row) for row in value["rows"]),
        "notes": Notes.from_json(value["notes"], Path("what a job tells")),
    }


def _trained(value: Any) -> tuple[int, dict[str, float | None] | None]:
    steps, row = value
    return int(steps), None if row is None else dict(row)


_READ: dict[str, Callable[[Any], Any]] = {"begun": _begun, "trained": _trained}
