"""Switching when a number of the trunk crosses a level, or begins to rise or fall."""

from __future__ import annotations

from anarch_core.plugin import ScheduleInfo, hookimpl
from anarch_plugins.schedules.when.options import WhenOptions


@hookimpl
def anarch_schedules() -> list[ScheduleInfo]:
    """Register the schedule."""
    return [
        ScheduleInfo(
            name="when",
            summary="When a number of an epoch crosses a level, rises or falls: 'when:gradient_norm<0.5', 'when:validation_loss rises'.",
            target="anarch_plugins.schedules.when.schedule:WhenSchedule",
            options=WhenOptions,
        )
    ]
