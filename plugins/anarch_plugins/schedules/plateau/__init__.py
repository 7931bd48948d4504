"""Switching when the trunk stops improving."""

from __future__ import annotations

from anarch_core.plugin import ScheduleInfo, hookimpl
from anarch_plugins.schedules.plateau.options import PlateauOptions


@hookimpl
def anarch_schedules() -> list[ScheduleInfo]:
    """Register the schedule."""
    return [
        ScheduleInfo(
            name="plateau",
            summary="Whenever the loss has not improved for some epochs, once per plateau; plateau:5 waits five.",
            target="anarch_plugins.schedules.plateau.schedule:PlateauSchedule",
            options=PlateauOptions,
        )
    ]
