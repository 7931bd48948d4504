"""The events of a run as lines of JSON."""

from __future__ import annotations

from anarch_core.plugin import ObserverInfo, hookimpl
from anarch_plugins.observers.jsonl.options import JsonlOptions


@hookimpl
def anarch_observers() -> list[ObserverInfo]:
    """Register the observer."""
    return [
        ObserverInfo(
            name="jsonl",
            summary="Appends a line of JSON per event to events.jsonl in the run directory.",
            target="anarch_plugins.observers.jsonl.observer:JsonlObserver",
            options=JsonlOptions,
        )
    ]
