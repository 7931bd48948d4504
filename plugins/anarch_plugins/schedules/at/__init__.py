"""Switch times written out by the user."""

from __future__ import annotations

from anarch_core.plugin import ScheduleInfo, hookimpl
from anarch_plugins.schedules.at.options import AtOptions


@hookimpl
def anarch_schedules() -> list[ScheduleInfo]:
    """Register the schedule."""
    return [
        ScheduleInfo(
            name="at",
            summary="At the moments given, in epochs or optimizer steps: at:0,10,40 or at:0,500it,20ep.",
            target="anarch_plugins.schedules.at.schedule:AtSchedule",
            options=AtOptions,
        )
    ]
